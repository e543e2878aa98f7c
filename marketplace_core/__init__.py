"""What the market is: pure computation, without I/O, clock, asyncio or logging."""
