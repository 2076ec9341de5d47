"""The system clock is set, forwards and back, by up to most of a day."""

from __future__ import annotations

from tests.chaos.clock import JumpingClock, MissingCompiler, make_shim
from tests.chaos.faults.base import Fault, Unavailable
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle
from tests.chaos.server import Wishes, World
from tests.chaos.watch import Watch

# Below the day for which an Idempotency-Key is kept.
_JUMPS_S = (-20 * 3600, -3600, -61, -2, 2, 61, 3600, 20 * 3600)


class ClockJumps(Fault):
    kills = True  # a restart under another time is part of it
    holds_s = (0.5, 1.0)

    def prepare(self) -> Wishes:
        try:
            shim = make_shim(self.directory)
        except MissingCompiler as error:
            raise Unavailable(str(error)) from None
        self._clock = JumpingClock(directory=self.directory, shim=shim)
        return Wishes(environ=self._clock.environ)

    def strike(self, world: World, load: Load, oracle: Oracle, watch: Watch) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            self._clock.shift(self.rng.choice(_JUMPS_S))
            self.pause(0.2, 0.6)
            if self.rng.random() < 0.3:
                world.kill()
                world.start()

    def heal(self, world: World) -> None:
        self._clock.shift(0)
