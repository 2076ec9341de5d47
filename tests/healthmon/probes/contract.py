"""What every kind of probe promises.  A kind's tests derive from `ProbeContract`, also a third
party's, and say where it succeeds and where it fails.

    class TestMyKind(ProbeContract):
        kind = "my_package.probes.KIND"
        bad_options = ({"depth": -1},)
        bad_addresses = ("", "no port")

        @contextlib.contextmanager
        def good(self):
            with Listener(answers(b"hello")) as listener:
                yield Case(listener.where)

A kind that speaks over TCP gets the faults of TCP from `TcpFaults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest

from control.outbound.policy import AddressPolicy
from healthmon.probes.kind import FAILED, OK, Request, Result
from healthmon.probes.net.policy import PROBING
from healthmon.probes.registry import kind_of
from healthmon.probes.tools import Tools
from healthmon.probes.trial import run_probe, try_probe
from sinks.options import OptionsError, Secret, decode_options, describe_options, secret_names
from tests.healthmon.probes import stand
from tests.healthmon.probes.listeners.tcp import Listener, closed_port, resets, silent

SECRET = "s3cret-value-never-shown"


@dataclass(frozen=True, kw_only=True)
class Case:
    address: str
    options: dict[str, Any] = field(default_factory=dict)
    tools: Tools | None = None


class ProbeContract:
    kind: ClassVar[str]
    bad_options: ClassVar[tuple[dict[str, Any], ...]] = ()
    bad_addresses: ClassVar[tuple[str, ...]] = ("",)
    judged_by_policy: ClassVar[bool] = True

    def good(self) -> AbstractContextManager[Case]:
        """Where it succeeds, on an address of the loopback."""
        raise NotImplementedError

    def stuck(self) -> AbstractContextManager[tuple[Case, Any]]:
        """Where it waits for ever, and an event that is set once it does."""
        raise NotImplementedError

    def failing(self) -> AbstractContextManager[Case]:
        """Where it fails at once."""
        raise NotImplementedError

    def probed(self, case: Case, **changed: Any) -> Result:
        return stand.probe(
            self.kind, case.address, {**case.options, **changed}, with_tools=case.tools
        )

    # What it says of itself

    def test_describes_itself(self) -> None:
        kind = kind_of(self.kind)
        assert all((kind.name, kind.label, kind.description, kind.address_label))
        assert kind.address_problem(kind.address_example) == ""
        assert kind.host(kind.address_example)
        for option in describe_options(kind.Options):
            assert option.help, option.name

    def test_its_default_options_are_good(self) -> None:
        required = [f.name for f in describe_options(kind_of(self.kind).Options) if f.required]
        assert not required

    def test_refuses_bad_options_by_name(self) -> None:
        for values in ({"no_such_option": 1}, *self.bad_options):
            with pytest.raises(OptionsError) as caught:
                decode_options(kind_of(self.kind).Options, values)
            assert any(name in str(caught.value) for name in values), str(caught.value)

    def test_refuses_bad_addresses_in_words(self) -> None:
        for address in self.bad_addresses:
            assert kind_of(self.kind).address_problem(address), address
            result = try_probe(self.kind, address, {}, 5)
            assert result.outcome == FAILED
            assert result.error

    # Probing

    def test_succeeds(self) -> None:
        with self.good() as case:
            assert kind_of(self.kind).address_problem(case.address) == ""
            result = self.probed(case)
        assert (result.outcome, result.error) == (OK, "")
        assert result.address
        assert result.total_ms > 0

    def test_many_at_once_do_not_disturb_each_other(self) -> None:
        with self.good() as case:
            tools = case.tools or stand.tools()
            kind, asked = stand.request(self.kind, case.address, case.options)

            async def many() -> list[Result]:
                return await asyncio.gather(*(run_probe(kind, asked, tools) for _ in range(20)))

            results = stand.on_loop(many, closing=tools.resolver)
        assert [result.outcome for result in results] == [OK] * 20

    def test_a_trial_says_the_same(self, own_tools: Any) -> None:
        with self.good() as case:
            own_tools(case.tools)
            result = try_probe(self.kind, case.address, case.options, stand.WAIT_S)
        assert (result.outcome, result.error) == (OK, "")

    def test_fails_in_a_sentence(self) -> None:
        with self.failing() as case:
            result = self.probed(case)
        assert result.outcome == FAILED
        assert result.error[0].isalnum() or result.error[0] in "['\""
        assert "Traceback" not in result.error

    def test_is_cut_off_anywhere_without_a_trace(self) -> None:
        with self.good() as case:
            tools = case.tools or stand.tools()
            kind, asked = stand.request(self.kind, case.address, case.options)
            assert kind.probe is not None
            probe = cast(Callable[[Request, Tools], Coroutine[Any, Any, Result]], kind.probe)
            places = stand.cut_off_everywhere(lambda: probe(asked, tools), closing=tools.resolver)
        assert places >= 1

    def test_waits_without_holding_the_loop_and_ends_when_told(self) -> None:
        with self.stuck() as (case, reached):
            tools = case.tools or stand.tools()
            kind, asked = stand.request(self.kind, case.address, case.options)

            async def told() -> bool:
                task = asyncio.create_task(run_probe(kind, asked, tools))
                # A probe that holds the loop would never let this be seen.
                assert await asyncio.to_thread(reached.wait, stand.WAIT_S)
                assert not task.done()
                task.cancel()
                await asyncio.wait((task,))
                return task.cancelled()

            assert stand.on_loop(told, closing=tools.resolver)

    def test_its_deadline_ends_it_and_says_what_it_waited_for(self) -> None:
        with self.stuck() as (case, _):
            result = stand.probe(
                self.kind, case.address, case.options, with_tools=case.tools, timeout_s=0.2
            )
        assert result.outcome == FAILED
        assert "0.2 s" in result.error or "did not answer" in result.error

    def test_obeys_the_address_policy(self) -> None:
        if not self.judged_by_policy:
            return
        with self.good() as case:
            tools = dataclasses.replace(
                case.tools or stand.tools(),
                policy=AddressPolicy(deny=["127.0.0.0/8", "::1/128"], words=PROBING),
            )
            result = stand.probe(self.kind, case.address, case.options, with_tools=tools)
        assert result.outcome == FAILED
        assert "COLLECTOR_PROBE_DENY" in result.error

    def test_shows_no_secret(self) -> None:
        secrets = secret_names(kind_of(self.kind).Options)
        for name in secrets:
            with self.failing() as case:
                result = self.probed(case, **{name: SECRET})
                assert result.outcome == FAILED
                assert SECRET not in repr(result)
                options = decode_options(kind_of(self.kind).Options, {**case.options, name: SECRET})
                assert getattr(options, name) == Secret(SECRET)
                assert SECRET not in repr(options)


class TcpFaults(ProbeContract):
    """The faults that any kind over TCP meets; `at` is its address for a listener's place."""

    def at(self, where: str) -> str:
        return where

    options: ClassVar[dict[str, Any]] = {}

    @contextlib.contextmanager
    def stuck(self) -> Iterator[tuple[Case, Any]]:
        with Listener(silent) as listener:
            yield Case(address=self.at(listener.where), options=self.options), listener.seen

    @contextlib.contextmanager
    def failing(self) -> Iterator[Case]:
        yield Case(address=self.at(f"127.0.0.1:{closed_port()}"), options=self.options)

    def test_a_closed_port_is_named(self) -> None:
        with self.failing() as case:
            result = self.probed(case)
        assert "127.0.0.1" in result.error
        assert "refused" in result.error

    def test_a_reset_connection_is_a_failure(self) -> None:
        with Listener(resets) as listener:
            case = Case(address=self.at(listener.where), options=self.options)
            result = self.probed(case)
        assert result.outcome == FAILED
        assert "reset" in result.error or "closed" in result.error

    def test_an_unresolvable_name_is_named(self) -> None:
        case = Case(address=self.at("no-such-host.example.org:9"), options=self.options)
        result = self.probed(case)
        assert result.outcome == FAILED
        assert "nameserver" in result.error
