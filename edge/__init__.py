"""What runs on a device: the agent, its line to the fleet, its trainer and its models."""
