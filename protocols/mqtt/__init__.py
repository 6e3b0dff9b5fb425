"""MQTT payloads, schema version 1 (docs/mqtt.md, schema.json): readings, events, signed commands and their answers.

Pure: `payload` holds the messages and topics, `signing` the signatures and the replay guard. No client, no clock.
"""
