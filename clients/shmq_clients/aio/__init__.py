"""The client for asyncio: the calls of the blocking one, awaitable. No thread, and nothing that waits but the loop."""
