"""Light devices: real keys, real MQTT, the real protocol and codec, and no trainer behind them."""
