"""Moving bytes: serial port, TCP client, dial-in connection, MQTT broker. All refuse writes in read-only mode."""
