"""A first call: without a key in the environment, a sandbox inside the process answers."""

from droveway import Agent, TextDelta

with Agent(instructions="Answer in two sentences.") as agent:
    reply = agent.chat("What is a droveway?")
    print(reply.text)
    print(f"{reply.model}: {reply.usage.output} tokens out, {reply.cost}, {reply.attempts} request")

    with agent.stream_chat("And who walks on it?") as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
    print(f"\nfirst token after {stream.reply().first_token_ms:.0f} ms")

    total = agent.usage_report().total
    print(f"{total.requests} requests so far: {total.cost}")
