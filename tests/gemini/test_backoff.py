"""Retries: one call probes, the others follow spread out, and none of them outlives its budget."""

import asyncio
import math
import random

import pytest
from aiohttp import web

from service.emulator.faults import PendingRequest, error, one_picture
from service.errors import GeminiError, GeminiUnavailable, OutcomeUnknown, StorageFull
from service.gemini import queue
from service.gemini.backoff import SHORTEST_INTERVAL_SECONDS
from service.gemini.call import CallHooks
from tests.gemini.conftest import CALL, Connect
from tests.gemini.virtual import Outcome, PlayedGemini, Sending, now, refused, run
from tests.helpers import QuickEmulator

# A task is stepped at the time of the timer that wakes it: equal times differ by rounding only.
ROUNDING = 1e-6


@pytest.fixture(params=range(5), autouse=True)
def jitter(request: pytest.FixtureRequest) -> None:
    """Each test is about all jitters, so it meets a few."""
    random.seed(request.param)


async def ask_all(gemini: PlayedGemini, count: int) -> list[float | GeminiError]:
    return await asyncio.gather(*(gemini.ask(f"call {number}") for number in range(count)))


@pytest.mark.parametrize("took", [0.001, 0.3])
def test_with_a_gemini_that_is_always_busy_the_last_call_is_answered_within_the_budget(took: float) -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda _: (took, refused()), slots=2, retry=4)
        answers = await ask_all(gemini, 20)
        assert now() <= 4 + 2 * took
        for answer in answers:
            assert isinstance(answer, GeminiUnavailable)
            assert (answer.billed, answer.worth_retrying) == (False, True)
        assert len({id(answer) for answer in answers}) == 20
        # Two went out at first; all later rounds were one probe.
        assert 3 <= len(gemini.sendings) <= 6
        assert min(gemini.gaps[1:]) >= 0.5
        await gemini.assert_idle(2)

    run(scenario())


@pytest.mark.parametrize("slots", [3, 64])
def test_one_call_probes_and_the_others_follow_spread_out(slots: int) -> None:
    async def scenario() -> None:
        first = min(20, slots)
        gemini = PlayedGemini(lambda one: (0.01, refused()) if one.number <= first else 0.2, slots)
        assert all(isinstance(answer, float) for answer in await ask_all(gemini, 20))
        after = gemini.sendings[first:]
        assert len(after) == 20
        # Nobody follows the probe before its answer.
        assert after[1].at >= after[0].at + 0.2
        gaps = gemini.gaps[first:]
        assert min(gaps) >= SHORTEST_INTERVAL_SECONDS / 2
        if slots == 64:
            # It grows while it works: the second half takes less than half of the time of the first.
            assert sum(gaps[10:]) < sum(gaps[1:10]) / 2
            assert now() < 8
        await gemini.assert_idle(slots)

    run(scenario())


def test_a_refusal_of_those_that_follow_starts_another_pause() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.01, refused()) if one.number in (1, 2, 3, 4, 7) else 0.1, retry=60)
        assert all(isinstance(answer, float) for answer in await ask_all(gemini, 4))
        assert len(gemini.sendings) == 9
        assert gemini.gaps[6] >= 0.5

    run(scenario())


def test_pauses_grow_to_a_limit() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda _: (0.01, refused()), retry=3600)
        asking = asyncio.create_task(gemini.ask())
        await asyncio.sleep(300)
        asking.cancel()
        for number, gap in enumerate(gemini.gaps):
            assert 0.5 <= (gap - 0.01) / min(2**number, 16) <= 1 + ROUNDING
        assert len(gemini.gaps) > 15

    run(scenario())


def test_a_pause_is_at_least_what_gemini_asked_for() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(7)) if one.number <= 4 else 0.1)
        await ask_all(gemini, 4)
        assert min(one.at for one in gemini.sendings[4:]) >= 7.1 - ROUNDING

    run(scenario())


def test_pictures_that_take_longer_than_the_budget_do_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.05, refused()) if one.number <= 4 else 20, retry=4)
        answers = await ask_all(gemini, 4)
        assert all(isinstance(answer, float) for answer in answers), answers
        assert max(one.at for one in gemini.sendings) <= 4.05

    run(scenario())


def test_a_budget_does_not_run_behind_calls_that_go_well() -> None:
    async def scenario() -> None:
        # The first call is refused once at its start, the last one once at its turn, long after the budget.
        gemini = PlayedGemini(lambda one: (0.01, refused()) if one.number in (1, 11) else 5, slots=1, retry=2)
        answers = await ask_all(gemini, 10)
        assert all(isinstance(answer, float) for answer in answers), answers
        assert len(gemini.sendings) == 12

    run(scenario())


def test_a_call_that_is_always_refused_among_others_that_go_well_ends_within_its_budget() -> None:
    async def scenario() -> None:
        def outcome(one: Sending) -> Outcome:
            return (0.01, refused()) if one.call.prompt == "unlucky" else 0.5

        gemini = PlayedGemini(outcome, slots=4, retry=5)
        unlucky = asyncio.create_task(gemini.ask("unlucky"))
        others = [asyncio.create_task(gemini.ask()) for _ in range(60)]
        assert isinstance(await unlucky, GeminiUnavailable)
        assert now() <= 6
        assert all(isinstance(answer, float) for answer in await asyncio.gather(*others))

    run(scenario())


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_gemini_that_refuses_some_calls_answers_all_in_a_long_line(share: float) -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda _: (0.05, refused()) if random.random() < share else 10, slots=16, retry=60)
        answers = await ask_all(gemini, 300)
        assert sum(isinstance(answer, float) for answer in answers) >= 295
        assert now() > 2 * 60
        await gemini.assert_idle(16)

    run(scenario())


def test_a_budget_counts_from_the_first_refusal_in_line_and_not_from_the_first_of_all() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.01, refused(6)) if one.number <= 2 else 0.1, retry=10)
        first = asyncio.create_task(gemini.ask("first"))
        await asyncio.sleep(5)
        second = asyncio.create_task(gemini.ask("second"))
        # Refused at 0 and 6: the first call's budget ends at 10, before the pause; that of the second at 16.
        assert isinstance(await first, GeminiUnavailable)
        assert now() == pytest.approx(6.02, abs=0.01)
        assert isinstance(await second, float)

    run(scenario())


@pytest.mark.parametrize("seconds", [31, 3600, math.inf])
def test_a_pause_beyond_the_budget_ends_all_in_line_at_once_and_holds_nobody_back_later(seconds: float) -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(seconds)) if one.number <= 2 else 0.1, slots=2)
        answers = await ask_all(gemini, 20)
        assert all(isinstance(answer, GeminiUnavailable) for answer in answers)
        assert now() <= 0.2
        assert len(gemini.sendings) == 2
        await gemini.assert_idle(2)
        assert isinstance(await gemini.ask(), float)

    run(scenario())


def test_a_call_that_comes_during_a_pause_beyond_any_budget_ends_at_once() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(3600)) if one.number == 2 else 60)
        long = asyncio.create_task(gemini.ask("long"))
        await asyncio.sleep(1)
        assert isinstance(await gemini.ask("refused"), GeminiUnavailable)
        assert isinstance(await gemini.ask("late"), GeminiUnavailable)
        assert len(gemini.sendings) == 2
        assert isinstance(await long, float)
        assert isinstance(await gemini.ask("later"), float)

    run(scenario())


def test_a_refused_call_says_how_much_of_the_pause_is_left() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(3600)) if one.number == 2 else 1000)
        long = asyncio.create_task(gemini.ask("keeps the breaker"))
        await asyncio.sleep(1)
        first = await gemini.ask("refused")
        await asyncio.sleep(600)
        late = await gemini.ask("late")
        assert isinstance(first, GeminiUnavailable)
        assert isinstance(late, GeminiUnavailable)
        assert (first.headers, late.headers) == ({"Retry-After": "3600"}, {"Retry-After": "3000"})
        long.cancel()

    run(scenario())


def test_calls_whose_budget_ends_in_the_queue_say_when_the_pause_is_over() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda _: (0.01, refused()), slots=2, retry=4)
        for answer in await ask_all(gemini, 20):
            assert isinstance(answer, GeminiUnavailable)
            assert 1 <= int(answer.headers["Retry-After"]) <= 4

    run(scenario())


def test_an_answer_to_a_call_that_was_sent_before_the_refusal_does_not_end_the_pause() -> None:
    async def scenario() -> None:
        outcomes: dict[int, Outcome] = {1: 2, 2: (0.1, refused(10))}
        gemini = PlayedGemini(lambda one: outcomes.get(one.number, 1))
        early = asyncio.create_task(gemini.ask("early"))
        await asyncio.sleep(0.5)
        late = asyncio.create_task(gemini.ask("late"))
        await early
        assert isinstance(await late, float)
        assert gemini.sendings[2].at >= 10.6 - ROUNDING

    run(scenario())


def test_a_pause_outlives_the_call_that_met_it() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(10)) if one.number == 1 else 1)
        gone = asyncio.create_task(gemini.ask("gone"))
        await asyncio.sleep(1)
        gone.cancel()
        await asyncio.sleep(1)
        assert isinstance(await gemini.ask("next"), float)
        assert gemini.sendings[1].at >= 10.1 - ROUNDING
        await gemini.assert_idle(64)

    run(scenario())


def test_other_models_are_not_held_back_and_find_the_slots_free() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(20)) if one.call.model == "busy" else 1, slots=1)
        busy = [asyncio.create_task(gemini.ask(model="busy")) for _ in range(5)]
        await asyncio.sleep(0.5)
        for _ in range(3):
            assert isinstance(await gemini.ask(model="idle"), float)
        assert now() == pytest.approx(3.5)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)

    run(scenario())


def test_a_refused_call_keeps_its_place_in_line_behind_the_probe() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused()) if one.number == 1 else 1, slots=1)
        await ask_all(gemini, 6)
        assert [one.call.prompt for one in gemini.sendings] == [f"call {number}" for number in (0, 1, 0, 2, 3, 4, 5)]

    run(scenario())


def test_a_probe_without_a_word_is_followed_all_the_same() -> None:
    async def scenario() -> None:
        broken = OutcomeUnknown("the connection broke", billed=None)
        outcomes: dict[int, Outcome] = {1: (0.1, refused()), 2: (0.1, refused()), 3: (5, broken)}
        gemini = PlayedGemini(lambda one: outcomes.get(one.number, 1))
        answers = await ask_all(gemini, 2)
        assert answers[0] is broken
        assert isinstance(answers[1], float)

    run(scenario())


class Failing(CallHooks):
    async def prepare(self) -> None:
        raise StorageFull("no space is left")


def test_a_probe_that_never_goes_out_gives_its_turn_to_the_next_at_once() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda one: (0.1, refused(5)) if one.number == 1 else 1)
        first = asyncio.create_task(gemini.ask("first"))
        await asyncio.sleep(1)
        tasks = [asyncio.create_task(gemini.ask(flight=Failing())) for _ in range(10)]
        last = asyncio.create_task(gemini.ask("last"))
        first.cancel()
        assert isinstance(await last, float)
        assert gemini.sendings[1].at == pytest.approx(5.1)
        assert {type(task.exception()) for task in tasks} == {StorageFull}

    run(scenario())


def test_as_many_models_as_clients_can_name_leave_nothing_behind() -> None:
    async def scenario() -> None:
        gemini = PlayedGemini(lambda _: (0.1, refused(20)), slots=10_000)
        tasks = [asyncio.create_task(gemini.ask(model=f"model-{number}")) for number in range(1500)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert len(gemini._queue._breakers) <= queue.MAX_IDLE_BREAKERS
        await gemini.assert_idle(10_000)

    run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_refused_broken_or_cancelled_no_slot_and_no_place_is_lost(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)

        def outcome(one: Sending) -> Outcome:
            took = chance.uniform(0, 2)
            faults = [None, refused(chance.choice([None, None, 3, 50])), OutcomeUnknown("broke", billed=None)]
            [fault] = chance.choices(faults, [5, chance.choice([1, 20]), 1])
            return (took, fault) if fault else took

        gemini = PlayedGemini(outcome, slots=5, retry=10)
        tasks = []
        for number in range(150):
            flight = Failing() if chance.random() < 0.05 else None
            tasks.append(asyncio.create_task(gemini.ask(str(number), chance.choice("abc"), flight)))
            await asyncio.sleep(chance.choice([0, 0, 0.1]))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            assert gemini.out <= 5
        await asyncio.wait(tasks)
        await gemini.assert_idle(5)

    run(scenario())


async def test_calls_over_real_sockets_do_not_resume_in_step(connect: Connect, quick_backoff: None) -> None:
    arrivals: list[float] = []
    busy, good = error(503, "busy"), one_picture

    async def notes(asked: PendingRequest) -> web.StreamResponse:
        arrivals.append(asyncio.get_running_loop().time())
        return await (busy if asked.number <= 20 else good)(asked)

    gemini = await connect(QuickEmulator(then=notes), retry=30)
    await asyncio.gather(*(gemini.draw(CALL) for _ in range(20)))
    assert len(arrivals) == 40
    first, *others = arrivals[20:]
    # Not all within a moment of each other, as those of the first round are: a pause of the usual kind ends for all.
    assert max(others) - first > 20 * SHORTEST_INTERVAL_SECONDS / 2
    assert gemini._queue._breakers == {}
