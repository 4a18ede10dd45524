//! The core by exact inputs, with services that it throttles, beside a model that remembers every event, and under loom.

use std::time::Duration;

use super::state::{Answer, Core, Decision, Rules};
use crate::clock::Instant;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Buckets of 100 ms.
fn rules() -> Rules {
    Rules { window: ms(1_000), max_rejection: 0.9, min_passes_per_second: 1.0 }
}

const OVERLOADED: Answer = Answer::Overloaded { retry_after: None };

#[cfg(not(palisade_loom))]
#[allow(clippy::cast_precision_loss, reason = "numbers of calls of a short test")]
mod exact {
    use super::*;

    /// A throttle whose time a test moves.
    struct Driven {
        core: Core,
        now: Instant,
        multiplier: f64,
    }

    impl Driven {
        fn new(rules: Rules) -> Self {
            let now = Instant::now();
            Self { core: Core::new(rules, now), now, multiplier: 2.0 }
        }

        fn wait(&mut self, wait: Duration) {
            self.now = self.now + wait;
        }

        fn answers(&self, answer: Answer, times: u32) {
            (0..times).for_each(|_| self.core.count_answer(answer, self.now));
        }

        fn share(&self) -> f64 {
            self.core.figures(self.multiplier, self.now).share
        }

        /// As a layer asks: a call that is refused is counted.
        fn passes(&self) -> bool {
            if self.core.is_calm() {
                return true;
            }
            let decision = self.core.decide(self.multiplier, fastrand::f64(), self.now);
            let refused = matches!(decision, Decision::Refuse { .. });
            if refused {
                self.core.count_refusal(self.now);
            }
            !refused
        }

        /// Whether a call would be refused, without counting it.
        fn is_refused(&self) -> bool {
            let decision = self.core.decide(self.multiplier, fastrand::f64(), self.now);
            matches!(decision, Decision::Refuse { .. })
        }
    }

    fn near(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} instead of {right}");
    }

    #[test]
    fn the_share_is_that_of_the_formula() {
        let throttle = Driven::new(rules());
        near(throttle.share(), 0.0);
        throttle.answers(Answer::Accepted, 30);
        throttle.answers(OVERLOADED, 30);
        near(throttle.share(), 0.0);
        throttle.answers(OVERLOADED, 10);
        near(throttle.share(), 10.0 / 71.0);
        (0..29).for_each(|_| throttle.core.count_refusal(throttle.now));
        near(throttle.share(), 39.0 / 100.0);
        let figures = throttle.core.figures(2.0, throttle.now);
        assert_eq!((figures.requests, figures.accepts, figures.rejections), (99, 30, 40));
        near(throttle.core.figures(3.0, throttle.now).share, 9.0 / 100.0);
    }

    #[test]
    fn a_single_rejection_throttles_few_calls_no_more_than_the_formula_says() {
        let throttle = Driven::new(rules());
        throttle.answers(OVERLOADED, 1);
        near(throttle.share(), 0.5);
        // The first call after the first rejection, many times.
        let refused = (0..10_000).filter(|_| {
            let throttle = Driven::new(rules());
            throttle.answers(OVERLOADED, 1);
            throttle.is_refused()
        });
        let refused = refused.count();
        assert!((4_700..5_300).contains(&refused), "{refused}");
        for accepts in 1..5 {
            let throttle = Driven::new(rules());
            throttle.answers(Answer::Accepted, accepts);
            throttle.answers(OVERLOADED, 1);
            near(throttle.share(), 0.0);
            (0..1_000).for_each(|_| assert!(!throttle.is_refused()));
        }
    }

    #[test]
    fn no_more_than_the_largest_share_is_refused() {
        for max_rejection in [0.01, 0.5, 0.99] {
            let throttle = Driven::new(Rules { max_rejection, min_passes_per_second: 0.0, ..rules() });
            throttle.answers(OVERLOADED, 10_000);
            near(throttle.share(), max_rejection);
            let refused = (0..100_000).filter(|_| throttle.is_refused()).count() as f64;
            assert!((refused - max_rejection * 100_000.0).abs() <= 4.0, "{refused}");
        }
    }

    #[test]
    fn as_many_calls_are_refused_as_their_shares_add_up_to() {
        let throttle = Driven::new(Rules { min_passes_per_second: 0.0, ..rules() });
        throttle.answers(Answer::Accepted, 300);
        throttle.answers(OVERLOADED, 400);
        let share = throttle.share();
        let refused: Vec<_> = (0..5_000).map(|_| throttle.is_refused()).collect();
        for length in [1, 2, 7, 10, 100, 1_000] {
            for calls in refused.windows(length) {
                let refused = calls.iter().filter(|refused| **refused).count() as f64;
                assert!((refused - share * length as f64).abs() < 5.0, "{refused} of {length} at {share}");
            }
        }
    }

    #[test]
    fn callers_who_take_turns_are_refused_alike() {
        for callers in [2, 3, 5] {
            let throttle = Driven::new(Rules { min_passes_per_second: 0.0, ..rules() });
            // One call of as many as there are callers is to be refused.
            let accepts = (60_000 - 60_000 / callers) / 2;
            throttle.answers(Answer::Accepted, accepts);
            throttle.answers(OVERLOADED, 60_000 - accepts);
            let mut refused = vec![0.0; callers as usize];
            for call in 0..60_000 {
                refused[call % callers as usize] += f64::from(u8::from(throttle.is_refused()));
            }
            let mean = 60_000.0 / f64::from(callers * callers);
            assert!(refused.iter().all(|refused| (refused / mean - 1.0).abs() < 0.1), "{refused:?}");
        }
    }

    #[test]
    fn some_calls_pass_every_second_whatever_the_share() {
        for (per_second, gap) in [(1.0, 200), (1.0, 1), (3.0, 250), (0.1, 100), (20.0, 10)] {
            let rules = Rules { window: ms(10_000), max_rejection: 0.99, min_passes_per_second: per_second };
            let mut throttle = Driven::new(rules);
            let (calls, mut total) = (1_000 / gap, 0);
            for _ in 0..60 {
                throttle.answers(OVERLOADED, 1_000);
                let mut passed = 0;
                for _ in 0..calls {
                    throttle.wait(ms(gap));
                    passed += u32::from(!throttle.is_refused());
                }
                assert!(f64::from(passed) >= per_second.floor(), "{passed} of {per_second} each {gap} ms");
                total += passed;
            }
            let (total, most) = (f64::from(total), 60.0 * (per_second + 0.01 * calls as f64) + 5.0);
            assert!(total >= 60.0 * per_second && total <= most, "{total} of {per_second} each {gap} ms");
        }
    }

    #[test]
    fn all_calls_pass_a_window_after_the_last_rejection() {
        let mut throttle = Driven::new(rules());
        throttle.answers(OVERLOADED, 1_000);
        throttle.wait(ms(999));
        assert!(!throttle.core.is_calm() && throttle.share() > 0.8);
        let refused = (0..1_000).filter(|_| !throttle.passes()).count();
        assert!(refused > 800, "{refused}");
        throttle.wait(ms(1));
        near(throttle.share(), 0.0);
        // The refusals are in the window still, and rest on nothing.
        assert_eq!(throttle.core.decide(2.0, 0.0, throttle.now), Decision::Calm);
        assert!(throttle.core.is_calm());
        (0..1_000).for_each(|_| assert!(throttle.passes()));
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_passed_on_within_bounds() {
        let mut throttle = Driven::new(rules());
        let asks = |throttle: &Driven, retry_after| {
            throttle.answers(Answer::Overloaded { retry_after: Some(retry_after) }, 1);
        };
        throttle.answers(OVERLOADED, 10);
        assert_eq!(throttle.core.come_back_after(throttle.now), None);
        asks(&throttle, ms(2_000));
        throttle.wait(ms(500));
        throttle.answers(OVERLOADED, 1);
        assert_eq!(throttle.core.come_back_after(throttle.now), Some(ms(1_500)));
        asks(&throttle, Duration::MAX);
        assert_eq!(throttle.core.come_back_after(throttle.now), Some(ms(60_000)));
        throttle.wait(ms(1_000));
        assert!(throttle.passes(), "nobody is kept waiting for it");
        // Another overload, of which the service says nothing.
        throttle.answers(OVERLOADED, 1);
        assert_eq!(throttle.core.come_back_after(throttle.now), None);
    }

    #[test]
    fn a_clock_that_stands_still_goes_back_or_jumps_does_no_harm() {
        let mut throttle = Driven::new(rules());
        let start = throttle.now;
        throttle.answers(OVERLOADED, 100);
        // It stands still: a tenth passes, and accepts count.
        let passes_and_is_rejected = |throttle: &Driven| {
            let passes = throttle.passes();
            throttle.answers(OVERLOADED, u32::from(passes));
            passes
        };
        let passed = (0..10_000).filter(|_| passes_and_is_rejected(&throttle)).count();
        assert!((990..1_110).contains(&passed), "{passed}");
        throttle.answers(Answer::Accepted, 20_000);
        near(throttle.share(), 0.0);
        // It goes back.
        throttle.now = start - Duration::from_secs(3_600);
        throttle.answers(OVERLOADED, 20_000);
        let figures = throttle.core.figures(2.0, throttle.now);
        assert!(figures.requests >= 39_000, "{figures:?}");
        let passed = (0..1_000).filter(|_| throttle.passes()).count();
        assert!(passed > 100, "{passed}");
        // It goes on, and jumps.
        for jump in [ms(1), ms(900), Duration::from_secs(3_600 * 24 * 36_500)] {
            throttle.now = start + jump;
            throttle.answers(OVERLOADED, 10);
            throttle.passes();
        }
        throttle.now = start + Duration::from_secs(10);
        throttle.answers(Answer::Accepted, 10);
        throttle.passes();
    }

    #[test]
    fn more_calls_than_a_bucket_can_count_keep_their_share() {
        let throttle = Driven::new(rules());
        for _ in 0..100_000 {
            throttle.answers(Answer::Accepted, 1);
            throttle.answers(OVERLOADED, 2);
        }
        assert!((throttle.share() - 1.0 / 3.0).abs() < 0.01, "{}", throttle.share());
    }

    /// A service that can do so many calls per second, and has room for a fifth of a second's.
    struct Capacity {
        per_second: f64,
        room: f64,
        since: Instant,
    }

    impl Capacity {
        fn answer(&mut self, now: Instant) -> Answer {
            let passed = now.saturating_duration_since(self.since).as_secs_f64();
            self.since = now;
            self.room = (self.room + passed * self.per_second).min((self.per_second / 5.0).max(1.0));
            if self.room < 1.0 {
                return OVERLOADED;
            }
            self.room -= 1.0;
            Answer::Accepted
        }
    }

    /// Calls that come at this rate for so long: how many there were, passed, and were accepted.
    fn run(throttle: &mut Driven, service: &mut Capacity, per_second: u32, time: Duration) -> [f64; 3] {
        let gap = Duration::from_secs(1) / per_second;
        let (mut calls, mut passed, mut accepted) = (0.0, 0.0, 0.0);
        for _ in 0..time.as_nanos() / gap.as_nanos() {
            calls += 1.0;
            throttle.wait(gap);
            if throttle.passes() {
                let answer = service.answer(throttle.now);
                throttle.answers(answer, 1);
                passed += 1.0;
                accepted += f64::from(u8::from(answer == Answer::Accepted));
            }
        }
        [calls, passed, accepted]
    }

    /// The default settings.
    fn defaults() -> Rules {
        Rules { window: ms(3_000), ..rules() }
    }

    #[test]
    fn in_a_lasting_overload_the_service_gets_the_multiple_of_what_it_accepts() {
        // The smaller it is, the less of what the service could do is found, where calls are few.
        for (multiplier, least, most, goodput) in
            [(2.0, 0.45, 0.55, 0.95), (1.5, 0.6, 0.73, 0.9), (1.1, 0.85, 0.98, 0.8)]
        {
            for rate in [50, 1_000] {
                let mut throttle = Driven { multiplier, ..Driven::new(defaults()) };
                let per_second = f64::from(rate) / 5.0;
                let mut service = Capacity { per_second, room: 0.0, since: throttle.now };
                run(&mut throttle, &mut service, rate, ms(10_000));
                let [calls, passed, accepted] = run(&mut throttle, &mut service, rate, ms(60_000));
                let share = accepted / passed;
                assert!((least..most).contains(&share), "{share} for {multiplier} at {rate}/s");
                assert!(
                    accepted > goodput * calls / 5.0,
                    "{accepted} of {calls} for {multiplier} at {rate}/s"
                );
            }
        }
    }

    #[test]
    fn after_an_overload_of_any_length_nearly_all_calls_pass_within_five_seconds() {
        for rate in [1, 5, 20, 1_000] {
            for overload in [ms(500), ms(3_000), Duration::from_secs(if rate > 20 { 600 } else { 3_600 })] {
                for multiplier in [1.1, 2.0] {
                    let mut throttle = Driven { multiplier, ..Driven::new(defaults()) };
                    let mut down = Capacity { per_second: 0.0, room: 0.0, since: throttle.now };
                    run(&mut throttle, &mut down, rate, overload);
                    let mut well = Capacity { per_second: 1e6, room: 0.0, since: throttle.now };
                    run(&mut throttle, &mut well, rate, ms(5_000));
                    let [calls, passed, _] = run(&mut throttle, &mut well, rate, ms(1_000));
                    assert!(passed >= 0.95 * calls, "{passed} of {calls} after {overload:?} at {multiplier}");
                }
            }
        }
    }

    #[test]
    fn a_service_that_can_do_more_gets_more_before_the_window_is_over() {
        let mut throttle = Driven::new(defaults());
        let mut down = Capacity { per_second: 0.0, room: 0.0, since: throttle.now };
        let [calls, passed, _] = run(&mut throttle, &mut down, 1_000, ms(60_000));
        assert!((0.09..0.12).contains(&(passed / calls)), "{passed} of {calls}");
        let mut well = Capacity { per_second: 1e6, room: 0.0, since: throttle.now };
        run(&mut throttle, &mut well, 1_000, ms(1_900));
        let [calls, passed, _] = run(&mut throttle, &mut well, 1_000, ms(200));
        assert!((0.12..0.3).contains(&(passed / calls)), "{passed} of {calls}");
        // Half of what it gets is too much: it finds its share at once.
        let mut half = Capacity { per_second: 500.0, room: 0.0, since: throttle.now };
        run(&mut throttle, &mut half, 1_000, ms(5_000));
        let [_, passed, accepted] = run(&mut throttle, &mut half, 1_000, ms(10_000));
        assert!(accepted > 4_700.0 && passed <= 10_000.0, "{accepted} of {passed}");
    }

    /// Refusals count at once, and accepts when they come: a rejection must not throttle the rest of what has begun.
    #[test]
    fn a_stray_rejection_hardly_throttles_a_service_that_is_slow_to_accept() {
        for latency in [500, 1_500, 3_000, 10_000] {
            for rate in [20, 1_000] {
                let mut throttle = Driven::new(defaults());
                throttle.answers(OVERLOADED, 1);
                let (mut under_way, mut refused) = (std::collections::VecDeque::new(), 0);
                for _ in 0..rate * 30 {
                    throttle.wait(Duration::from_secs(1) / rate);
                    while under_way.front().is_some_and(|due| *due <= throttle.now) {
                        under_way.pop_front();
                        throttle.answers(Answer::Accepted, 1);
                    }
                    if throttle.passes() {
                        under_way.push_back(throttle.now + ms(latency));
                    } else {
                        refused += 1;
                    }
                }
                assert!(refused <= 37, "{refused} at {rate}/s, answered after {latency} ms");
            }
        }
    }

    #[test]
    fn no_event_is_lost_between_threads() {
        let now = Instant::now();
        let core = Core::new(Rules { window: Duration::from_secs(600), ..rules() }, now);
        let refused = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let core = &core;
                    scope.spawn(move || {
                        let mut refused = 0;
                        for call in 0..10_000 {
                            // Four buckets, which whoever comes first moves on to.
                            let now = now + Duration::from_secs(60) * (call / 2_500);
                            let decision = core.decide(2.0, fastrand::f64(), now);
                            if !core.is_calm() && matches!(decision, Decision::Refuse { .. }) {
                                core.count_refusal(now);
                                refused += 1;
                            } else if (call + thread) % 4 == 0 {
                                core.count_answer(Answer::Accepted, now);
                            } else {
                                core.count_answer(OVERLOADED, now);
                            }
                        }
                        refused
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
        });
        let figures = core.figures(2.0, now + Duration::from_secs(180));
        assert_eq!(figures.requests, 40_000);
        assert_eq!(figures.accepts + figures.rejections + refused, 40_000);
        assert!(refused > 10_000, "{refused}");
    }
}

#[cfg(not(palisade_loom))]
#[allow(clippy::cast_precision_loss, reason = "numbers of calls of a short test")]
mod beside_a_model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Event {
        Accepted,
        Rejected,
        Refused,
    }

    /// Remembers every event with its time, and works out everything from them.
    struct Model {
        // In ms, as are all times.
        window: u64,
        multiplier: f64,
        max_rejection: f64,
        events: Vec<(u64, Event)>,
    }

    impl Model {
        /// How many events of a kind are younger than this.
        fn younger(&self, age: u64, kind: Option<Event>, now: u64) -> u32 {
            let counts =
                |event: &&(u64, Event)| event.0 + age > now && kind.is_none_or(|kind| kind == event.1);
            u32::try_from(self.events.iter().filter(counts).count()).unwrap()
        }

        /// How many are in the ten buckets that the window covers.
        fn covered(&self, kind: Option<Event>, now: u64) -> u32 {
            let length = self.window / 10;
            // As old as a bucket is that began nine buckets before the present one.
            self.younger(now % length + 9 * length + 1, kind, now)
        }

        fn share(&self, now: u64) -> f64 {
            if self.younger(self.window, Some(Event::Rejected), now) == 0 {
                return 0.0;
            }
            let requests = f64::from(self.covered(None, now));
            let accepts = f64::from(self.covered(Some(Event::Accepted), now));
            let rejected = f64::from(self.covered(Some(Event::Rejected), now));
            let refused = f64::from(self.covered(Some(Event::Refused), now));
            let (multiplier, largest) = (self.multiplier, self.max_rejection);
            if refused >= 2.0 * multiplier / (multiplier - 1.0) * largest / (1.0 - largest) * rejected {
                return 0.0;
            }
            ((requests - self.multiplier * accepts) / (requests + 1.0)).clamp(0.0, self.max_rejection)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call(f64),
        Answer(bool),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0.0..1.0f64).prop_map(Step::Call),
            6 => any::<bool>().prop_map(Step::Answer),
            3 => (0..200u64).prop_map(Step::Wait),
            1 => (0..3_000u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn the_throttle_agrees_with_a_model_that_remembers_every_event(
            tenths in 10..200u64,
            multiplier in 1.0..4.0f64,
            max_rejection in 0.05..0.99f64,
            per_second in prop_oneof![Just(0.0), 0.1..20.0f64],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let window = tenths * 10;
            let rules = Rules { window: ms(window), max_rejection, min_passes_per_second: per_second };
            let start = Instant::now();
            let core = Core::new(rules, start);
            let mut model = Model { window, multiplier, max_rejection, events: Vec::new() };
            let (mut now, mut shares, mut refusals) = (0, 0.0, 0.0);
            // Refusals that came to nothing, since a call had to pass; and since when none has passed.
            let mut passed_at = 0;
            for step in steps {
                let at = start + ms(now);
                match step {
                    Step::Wait(wait) => now += wait,
                    Step::Answer(accepted) => {
                        if model.younger(window, Some(Event::Rejected), now) == 0 {
                            (shares, refusals) = (0.0, 0.0);
                            passed_at = now;
                        }
                        core.count_answer(if accepted { Answer::Accepted } else { OVERLOADED }, at);
                        model.events.push((now, if accepted { Event::Accepted } else { Event::Rejected }));
                    }
                    Step::Call(random) => {
                        let share = model.share(now);
                        let decision = core.decide(multiplier, random, at);
                        if model.younger(window, Some(Event::Rejected), now) == 0 {
                            prop_assert_eq!(decision, Decision::Calm);
                            continue;
                        }
                        let (told, refused) = match decision {
                            Decision::Pass { share } => (share, false),
                            Decision::Refuse { share } => (share, true),
                            Decision::Calm => panic!("a rejection is in the window"),
                        };
                        prop_assert!((told - share).abs() < 1e-12, "{told} instead of {share}");
                        shares += share;
                        if refused {
                            core.count_refusal(at);
                            model.events.push((now, Event::Refused));
                            refusals += 1.0;
                            let longest = 1_000.0 / per_second;
                            prop_assert!(((now - passed_at) as f64) < longest.max(1.0), "one had to pass");
                        } else {
                            passed_at = now;
                        }
                        prop_assert!(refusals <= shares + 4.001, "{refusals} of {shares}");
                        if per_second == 0.0 {
                            prop_assert!(refusals >= shares - 4.001, "{refusals} of {shares}");
                        }
                    }
                }
                // An event is in the window for nine tenths of its length at least, and for all of it at most.
                let figures = core.figures(multiplier, start + ms(now));
                prop_assert_eq!(figures.requests, model.covered(None, now));
                prop_assert_eq!(figures.accepts, model.covered(Some(Event::Accepted), now));
                prop_assert_eq!(figures.rejections, model.covered(Some(Event::Rejected), now));
                prop_assert!(figures.requests >= model.younger(window / 10 * 9, None, now));
                prop_assert!(figures.requests <= model.younger(window, None, now));
                prop_assert!((figures.share - model.share(now)).abs() < 1e-12);
                prop_assert!(!core.is_calm() || model.younger(window, Some(Event::Rejected), now) == 0);
            }
        }
    }
}

#[cfg(palisade_loom)]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    fn model(check: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// Answers that find the bucket at its end move the window on for each other, and every one is counted.
    #[test]
    fn loom_no_answer_is_lost_where_a_bucket_ends() {
        model(|| {
            let start = Instant::now();
            let core = Arc::new(Core::new(rules(), start));
            let later = start + ms(100);
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.count_answer(Answer::Accepted, later))
            };
            core.count_answer(OVERLOADED, later);
            other.join().unwrap();
            let figures = core.figures(2.0, later);
            assert_eq!((figures.requests, figures.accepts, figures.rejections), (2, 1, 1));
        });
    }

    /// A rejection that comes while another call finds the last one gone is not forgotten.
    #[test]
    fn loom_a_rejection_is_never_taken_for_calm() {
        model(|| {
            let start = Instant::now();
            let core = Arc::new(Core::new(rules(), start));
            core.count_answer(OVERLOADED, start);
            let later = start + ms(1_000);
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.count_answer(OVERLOADED, later))
            };
            core.decide(2.0, 0.0, later);
            other.join().unwrap();
            assert!(!core.is_calm());
            assert!(core.figures(2.0, later).share > 0.4);
        });
    }

    /// Of two calls that find that one has to pass, one does.
    #[test]
    fn loom_the_pass_of_a_second_goes_to_one_call() {
        model(|| {
            let start = Instant::now();
            let core = Arc::new(Core::new(Rules { window: ms(10_000), ..rules() }, start));
            core.count_answer(OVERLOADED, start);
            let later = start + ms(1_000);
            // This chance refuses whatever is owed.
            let refused = move |core: &Core| matches!(core.decide(2.0, 0.0, later), Decision::Refuse { .. });
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || refused(&core))
            };
            let refused = [refused(&core), other.join().unwrap()];
            assert_eq!(refused.iter().filter(|refused| **refused).count(), 1);
        });
    }
}
