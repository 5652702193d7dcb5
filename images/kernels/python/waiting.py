# Top-level await, on one event loop for the life of the kernel. Tasks that a cell left behind
# go on when a later cell awaits something. Part of kernel.py, which loads it into its process
# at the first `await`; `kernel` is that driver.
asyncio = kernel.import_stdlib("asyncio")
loop = None


def run(coroutine):
    global loop
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except (KeyboardInterrupt, SystemExit):
        for other in asyncio.all_tasks(loop):
            other.cancel()
        if not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException:
                pass  # the interrupt is what is reported
        raise
