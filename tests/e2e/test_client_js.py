"""The JavaScript client, run by Node 22 or newer, against the stand-in of a relay and against the relay itself."""

import asyncio
import gzip
import random
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from relay.client import Confirmed, Refused, RelayClient, Update
from tests.conftest import StartRelay
from tests.support.client_readings import BTC, START, is_a, relay, until
from tests.support.client_readings import closed_times as closed_times_in_python
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.javascript_client import Fault, JsClient, Json, StartClient, node_of, run_node, start_client
from tests.support.running_relay import Running
from tests.support.served_files import MODULES, client_file
from tests.support.stand_in_relay import StandInRelay, problem_json
from tests.support.tools import npm_tool

__all__ = ["relay", "start_client"]


@pytest.fixture
async def client(relay: StandInRelay, start_client: StartClient) -> JsClient:
    return await start_client(relay.url)


def closed_times(messages: list[Json]) -> list[int]:
    times: list[int] = []
    for message in messages:
        if message["type"] == "snapshot":
            closed = message["candles"] if message["lastIsClosed"] else message["candles"][:-1]
            times += [candle["time"] for candle in closed]
        elif message["type"] == "update" and message["isClosed"] and not message["isRevised"]:
            times.append(message["candle"]["time"])
    return times


# -- one connection -------------------------------------------------------------------------------------------------


async def test_streams_left_at_once_are_never_asked_for(relay: StandInRelay, client: JsClient) -> None:
    await client.start("subscribe", "BTCUSDT@1m")
    await client.until("update")
    for number in range(50):
        relay.open_market(f"T{number:02}@1m", START)
        await client.call("subscribe", f"T{number:02}@1m")
        if number < 49:
            await client.call("unsubscribe", f"T{number:02}@1m")
    await client.until("update", stream="T49@1m")
    assert await client.call("streams") == ["BTCUSDT@1m", "T49@1m"]
    subscribed = {name for one in relay.requests if one["action"] == "subscribe" for name in one["streams"]}
    left = {name for one in relay.requests if one["action"] == "unsubscribe" for name in one["streams"]}
    assert subscribed - left == {"BTCUSDT@1m", "T49@1m"}


async def test_many_streams_are_asked_for_in_frames_that_the_relay_takes(relay: StandInRelay, client: JsClient) -> None:
    names = [f"{'X' * 30}{number:04}@1m" for number in range(250)]
    for name in names:
        relay.open_market(name, START)
    await client.start("subscribe", names, {"bars": 0})
    await client.until("snapshot", stream=names[-1])
    assert max(relay.frame_sizes) <= 4096
    assert max(len(request["streams"]) for request in relay.requests) <= 100
    assert sorted(name for request in relay.requests for name in request["streams"]) == names


# -- what may be missing --------------------------------------------------------------------------------------------


# -- lost connections -----------------------------------------------------------------------------------------------


async def test_relay_that_is_away_is_waited_for(relay: StandInRelay, client: JsClient) -> None:
    await client.start("subscribe", "BTCUSDT@1m", {"bars": 2})
    messages = await client.until("snapshot")
    await relay.stop()
    messages += await client.until("lost", closeCode=None)
    await relay.close_candle(BTC)
    await relay.start()
    messages += await client.until_open_at(START + 240)
    assert closed_times(messages) == [START + 120, START + 180]


# -- one client, any number of readers ------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["snapshot", "update"])
async def test_break_closes_the_socket_and_the_next_loop_goes_on(
    relay: StandInRelay, start_client: StartClient, type_: str
) -> None:
    client = await start_client(relay.url, iterates=False)
    await client.call("subscribe", "BTCUSDT@1m", {"bars": 2})
    await client.start("iterate", type_)
    messages = await client.until("snapshot")
    if type_ == "update":
        await relay.close_candle(BTC)
    messages += await client.until("end")
    assert messages[-2]["type"] == type_
    await eventually(lambda: relay.clients == 0)
    assert await client.call("isConnected") is False
    await relay.close_candle(BTC)
    await client.start("iterate")
    messages += await client.until_open_at(relay.markets[BTC][-1].time)
    times = closed_times(messages)
    assert times == [START + 120 + 60 * number for number in range(len(times))]
    assert times[-1] == relay.markets[BTC][-2].time
    assert relay.attempts == 2


async def test_break_leaves_the_connection_to_who_still_reads(relay: StandInRelay, start_client: StartClient) -> None:
    client = await start_client(relay.url, iterates=False)
    await client.start("iterate")
    await client.until("connected")
    await client.call("subscribe", "BTCUSDT@1m", {"bars": 2})
    await client.start("iterate", "update")
    messages = await client.until("snapshot")
    for close in range(4):
        await relay.tick(BTC, float(close))
        messages += await client.until("update")
    if {"type": "end"} not in messages:
        await client.until("end")
    await relay.close_candle(BTC)
    await client.until_open_at(START + 240)
    assert relay.attempts == 1


async def test_program_ends_after_a_break(relay: StandInRelay, request: pytest.FixtureRequest) -> None:
    async with asyncio.timeout(LONGEST_WAIT_S):
        kind = await run_node(
            node_of(request.config),
            f"""import {{ RelayClient }} from "{client_file()}";
            const relay = new RelayClient("{relay.url}");
            relay.subscribe("BTCUSDT@1m", {{ bars: 2 }});
            for await (const message of relay) {{
              if (message.type !== "snapshot") continue;
              console.log(JSON.stringify(message.type));
              break;
            }}
            """,
        )
    assert kind == "snapshot"


async def test_readers_share_one_connection(relay: StandInRelay, start_client: StartClient) -> None:
    client = await start_client(relay.url, iterates=False)
    for _ in range(3):
        await client.start("iterate")
    await client.call("subscribe", "BTCUSDT@1m", {"bars": 2})
    messages = await client.until("snapshot")
    await relay.close_candle(BTC)
    messages += await client.until_open_at(START + 240)
    assert closed_times(messages) == [START + 120, START + 180]
    assert relay.attempts == 1


async def test_failure_reaches_all_who_wait_and_iterating_again_waits_for_the_backoff(
    relay: StandInRelay, start_client: StartClient
) -> None:
    client = await start_client(relay.url, iterates=False, backoffMs=[200, 400])
    relay.handshake, relay.handshake_headers = 429, {"Retry-After": "0.3"}
    before = asyncio.get_running_loop().time()
    for number in range(3):
        for _ in range(3):
            await client.start("next")
        for _ in range(3):
            with pytest.raises(Fault, match="Refused: too many") as caught:
                await client.until("connected")
            assert (caught.value.fields["code"], caught.value.fields["retryAfterMs"]) == ("rate_limited", 300)
        # The upgrade, and the request that asks why it failed.
        assert relay.attempts == 2 * (number + 1)
    assert asyncio.get_running_loop().time() - before >= 0.6
    relay.handshake = None
    await client.start("iterate")
    await client.until("connected")


@pytest.mark.parametrize(
    "use",
    [
        ("iterate",),
        ("next",),
        ("subscribe", "BTCUSDT@1m"),
        ("unsubscribe", "BTCUSDT@1m"),
        ("history", "BTCUSDT", "1m"),
        ("symbols",),
        ("instruments",),
        ("status",),
    ],
)
async def test_use_after_close_is_an_error_by_name(relay: StandInRelay, client: JsClient, use: tuple[str, ...]) -> None:
    await client.until("connected")
    await client.start("close")
    assert (await client.until("end")) == [{"type": "end"}]
    await client.start(*use)
    with pytest.raises(Fault, match=r"^ClientClosed: this client is closed; make a new one$"):
        await client.until("end")
    assert await client.call("isClosed") is True
    assert relay.attempts == 1


async def test_relay_that_is_full_says_so_and_when_to_come_back(
    relay_with: StartRelay, start_client: StartClient
) -> None:
    relay: Running = await relay_with(max_clients=1)
    first = await start_client(relay.url)
    await first.until("connected")
    second = await start_client(relay.url)
    with pytest.raises(Fault, match="Refused: the relay is full") as caught:
        await second.until("connected")
    fields = caught.value.fields
    assert (fields["status"], fields["code"], fields["retryAfterMs"]) == (503, "internal", 10_000)
    async with RelayClient(relay.url) as third:
        with pytest.raises(Refused) as refused:
            await anext(third)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "internal", 10.0)


@pytest.mark.parametrize("wait", ["9999999999", "inf", "-1", "soon"])
async def test_retry_after_that_no_timer_holds_makes_no_flood(
    relay: StandInRelay, start_client: StartClient, wait: str
) -> None:
    relay.handshake, relay.handshake_headers = 503, {"Retry-After": wait}
    client = await start_client(relay.url, waitsForRelay=True, backoffMs=[60_000, 60_000])
    await client.until("lost")
    await asyncio.sleep(0.3)
    assert relay.attempts == 2


async def test_candles_say_whether_they_are_open(relay: StandInRelay, client: JsClient) -> None:
    await client.start("subscribe", "BTCUSDT@1m", {"bars": 3})
    snapshot = (await client.until("snapshot"))[-1]
    assert [candle["isClosed"] for candle in snapshot["candles"]] == [True, True, False]
    await relay.close_candle(BTC)
    closed, opened = await client.until_open_at(START + 240)
    assert (closed["candle"]["isClosed"], opened["candle"]["isClosed"]) == (True, False)
    await client.start("history", "BTCUSDT", "1m", {"limit": 2})
    history = await client.until_result()
    assert [candle["isClosed"] for candle in history["candles"]] == [True, False]


@pytest.mark.parametrize("body", ["null", "5", "[null]", "{}", '"text"'])
async def test_answers_of_other_shapes_are_told_apart(
    relay: StandInRelay, start_client: StartClient, body: str
) -> None:
    client = await start_client(relay.url, iterates=False)
    for call in (("history", "BTCUSDT", "1m"), ("symbols",), ("instruments",), ("status",)):
        if call != ("status",) or body != "{}":
            relay.problem = web.Response(text=body, content_type="application/json")
            with pytest.raises(Fault, match="BadReply"):
                await client.call(*call)


async def test_body_that_does_not_end_at_the_signal_is_an_error_in_time(request: pytest.FixtureRequest) -> None:
    # So does one of 100 KB in Node 22 that is not encoded as it says.
    said = await run_node(
        node_of(request.config),
        f"""import {{ RelayClient }} from "{client_file()}";
        globalThis.fetch = async () => new Response(new ReadableStream({{ pull: () => new Promise(() => {{}}) }}));
        const relay = new RelayClient("http://127.0.0.1:1", {{ timeoutMs: 50 }});
        const patience = setTimeout(() => console.log(JSON.stringify("nothing")), 20000);
        await relay.symbols().catch(({{ message }}) => console.log(JSON.stringify(message)));
        clearTimeout(patience);
        """,
    )
    assert said == "no relay reached at http://127.0.0.1:1/: no answer in time"


async def test_no_answer_is_read_beyond_its_bound(relay: StandInRelay, start_client: StartClient) -> None:
    client = await start_client(relay.url, iterates=False)
    body = gzip.compress(b'["' + b"x" * (65 * 2**20) + b'"]', 1)
    relay.problem = web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
    with pytest.raises(Fault, match=r"BadReply: .*more than 64 MiB"):
        await client.call("symbols")


async def test_relay_that_cannot_be_reached_at_first_is_an_error_unless_waited_for(
    relay: StandInRelay, start_client: StartClient
) -> None:
    await relay.stop()
    hasty = await start_client(relay.url)
    with pytest.raises(Fault, match=f"Unreachable: no relay reached at {relay.url}"):
        await hasty.until("connected")
    patient = await start_client(relay.url, waitsForRelay=True)
    await patient.until("lost")
    await relay.start()
    await patient.until("connected")


async def test_random_faults_leave_every_closed_candle_once_and_in_order(relay: StandInRelay, client: JsClient) -> None:
    dice = random.Random(7)
    await client.start("subscribe", "BTCUSDT@1m", {"bars": 1})
    messages = await client.until("snapshot")
    for _ in range(40):
        await relay.tick(BTC, dice.uniform(90, 110))
        if dice.random() < 0.6:
            await relay.close_candle(BTC)
        relay.replays = dice.randrange(4)
        match dice.randrange(8):
            case 0:
                await relay.drop(dice.choice([1001, 4000, 1011]))
            case 1:
                relay.cut()
            case 2:
                await relay.say("{")
            case 3:
                await asyncio.sleep(0.03)
    last = relay.markets[BTC][-1].time
    messages += await client.until_open_at(last)
    assert closed_times(messages) == list(range(START + 180, last, 60))


# -- REST and tokens, at the relay itself ---------------------------------------------------------------------------


async def test_two_names_of_a_stream_are_one_at_the_relay_itself(
    relay_with: StartRelay, start_client: StartClient
) -> None:
    relay: Running = await relay_with()
    names = ["BTCUSDT@1s", "binance:BTCUSDT@1s"]
    javascript = await start_client(relay.url)
    await javascript.call("subscribe", names, {"bars": 2})
    times: list[int] = []
    while len(times) < 4:
        times += closed_times(await javascript.until("update", isClosed=True))
    assert times == list(range(times[0], times[0] + len(times)))
    assert await javascript.call("streams") == names[:1]
    await javascript.call("unsubscribe", names[1])
    assert await javascript.call("streams") == []
    said = await javascript.until("confirmed")
    # Where the machine stood still, a stream was stale in between.
    assert [one["type"] for one in said if one["type"] not in ("update", "state")] == ["confirmed"]
    async with RelayClient(relay.url) as python:
        await python.subscribe(*names, bars=2)
        messages = await until(python, lambda one: isinstance(one, Update) and one.is_closed)
        messages += await until(python, lambda one: isinstance(one, Update) and one.is_closed)
        times = closed_times_in_python(messages)
        assert times == list(range(times[0], times[0] + len(times)))
        assert list(map(str, python.streams)) == names[:1]
        await python.unsubscribe(names[1])
        assert python.streams == ()
        assert [type(one) for one in await until(python, is_a(Confirmed))] == [Confirmed]


async def test_rest_answers_are_what_the_relay_said(relay: StandInRelay, start_client: StartClient) -> None:
    client = await start_client(relay.url, iterates=False)
    history = await client.call("history", "BTCUSDT", "1m", {"limit": 2, "endTime": START + 900})
    assert [candle["time"] for candle in history["candles"]] == [START + 120, START + 180]
    assert relay.queries[-1] == {"symbol": "BTCUSDT", "interval": "1m", "limit": "2", "end_time": str(START + 900)}
    assert await client.call("symbols") == ["BTCUSDT"]
    (instrument,) = await client.call("instruments")
    assert (instrument["assetClass"], instrument["id"], instrument["name"]) == ("crypto", "demo:BTCUSDT", None)
    assert (instrument["priceStep"], instrument["derivedIntervals"]) == (None, [])
    await client.call("instruments", "crypto", {"search": "S&P", "provider": "demo", "limit": 9})
    assert relay.queries[-1] == {"asset_class": "crypto", "q": "S&P", "provider": "demo", "limit": "9"}
    with pytest.raises(Fault, match="BadArgument: limit 5001 is not a whole number from 1 to 5000"):
        await client.call("instruments", None, {"limit": 5001})
    assert (await client.call("status"))["version"] == "0.1.0"
    relay.problem = problem_json(503, "provider_unavailable", "no budget", **{"Retry-After": "7"})
    with pytest.raises(Fault, match="Refused: no budget") as caught:
        await client.call("symbols")
    assert (caught.value.fields["status"], caught.value.fields["retryAfterMs"]) == (503, 7000)
    assert relay.connections == 0


async def test_redirect_is_not_followed_and_named_by_status_and_host(relay: StandInRelay, client: JsClient) -> None:
    location = f"http://localhost:{relay.port}/stolen?token=hush"
    relay.problem = web.Response(status=307, headers={"Location": location})
    with pytest.raises(Fault) as caught:
        await client.call("symbols")
    assert caught.value.fields["name"] == "BadReply"
    assert f"HTTP 307 points to localhost:{relay.port}; redirects are not followed" in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_token_opens_the_socket_and_the_routes(relay_with: StartRelay, start_client: StartClient) -> None:
    relay: Running = await relay_with(tokens=["sesame-open-1234567890"])
    client = await start_client(relay.url, token="sesame-open-1234567890")
    await client.start("subscribe", "BTCUSDT@1s", {"bars": 3})
    assert len((await client.until("snapshot"))[-1]["candles"]) == 3
    assert "BTCUSDT" in await client.call("symbols")


async def test_token_that_is_not_valid_ends_it(relay_with: StartRelay, start_client: StartClient) -> None:
    relay: Running = await relay_with(tokens=["sesame-open-1234567890"])
    client = await start_client(relay.url, token="wrong", waitsForRelay=True)
    with pytest.raises(Fault, match="Refused: a valid token is needed") as caught:
        await client.until("connected")
    assert caught.value.fields["status"] == 401
    assert "wrong" not in str(caught.value)


async def test_without_websocket_it_says_what_is_missing(request: pytest.FixtureRequest) -> None:
    name, said = await run_node(
        node_of(request.config),
        f"""import {{ RelayClient }} from "{client_file()}";
        delete globalThis.WebSocket;
        const relay = new RelayClient("http://127.0.0.1:1", {{ waitsForRelay: true }});
        relay.subscribe("BTCUSDT@1m");
        await relay.next().catch(({{ name, message }}) => console.log(JSON.stringify([name, message])));
        """,
    )
    assert name == "ClientError"
    assert "Node 22" in said


async def test_before_the_first_snapshot_as_many_bars_are_asked_for_as_are_owed(request: pytest.FixtureRequest) -> None:
    asked = await run_node(
        node_of(request.config),
        f"""import {{ Progress }} from "{MODULES / "resume.js"}";
        const progress = new Progress("BTCUSDT@1m", {{ bars: 3 }});
        const asked = [progress.request({START})];
        progress.confirm({START});
        for (const after of [0, 120, 6000, 1e6]) asked.push(progress.request({START} + after));
        console.log(JSON.stringify(asked));
        """,
    )
    assert asked == [{"bars": 3}, {"bars": 3}, {"bars": 4}, {"bars": 102}, {"bars": 5000}]


# -- types ----------------------------------------------------------------------------------------------------------


async def test_types_describe_what_the_file_exports(request: pytest.FixtureRequest) -> None:
    exported, members = await run_node(
        node_of(request.config),
        f"""import * as client from "{client_file()}";
        const own = Object.getOwnPropertyNames(client.RelayClient.prototype);
        const fields = Object.keys(new client.RelayClient("localhost"));
        console.log(JSON.stringify([Object.keys(client), [...own, ...fields]]));
        """,
    )
    types = client_file().with_name("client.d.ts").read_text(encoding="utf-8")
    assert set(re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE)) == set(exported)
    of_client = types.partition("export class RelayClient")[2].partition("\n}")[0]
    described = set(re.findall(r"^  (?:readonly )?(\w+)[(:]", of_client, re.MULTILINE))
    assert described == set(members)


def test_types_are_what_a_compiler_takes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tsc = npm_tool("tsc", request.config)
    program = tmp_path / "program.mts"
    program.write_text(
        f"""import {{ RelayClient, Refused, type Candle }} from "{client_file()}";
        const relay = new RelayClient("http://127.0.0.1:8000", {{ token: "t", backoffMs: [1, 2] }});
        relay.subscribe(["BTCUSDT@1m"], {{ bars: 5, closedOnly: true }});
        const candles: Candle[] = (await relay.history("BTCUSDT", "1m", {{ limit: 5, waitS: 3 }})).candles;
        for await (const message of relay) {{
          if (message.type === "snapshot") candles.push(...message.candles);
          else if (message.type === "update" && message.isClosed) candles.push(message.candle);
          else if (message.type === "failure" && !message.isRetried) break;
          // @ts-expect-error  there is no such message
          else if (message.type === "weather") break;
          // @ts-expect-error  there is no such state
          else if (message.type === "state" && message.status === "conected") break;
          // @ts-expect-error  there is no such code
          else if (message.type === "failure" && message.code === "unknown_symbl") break;
          const last = candles.at(-1);
          if (last?.isClosed) console.log(last.close);
        }}
        export const wait: (fault: Refused) => number | null = (fault) => fault.retryAfterMs;
        """
    )
    flags = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext")
    done = subprocess.run(
        [tsc, *flags, "--lib", "es2023,dom", str(program)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
