"""Private servers on free loopback ports, started on first use and gone with the test session."""
