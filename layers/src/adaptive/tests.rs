//! The core by exact inputs, by any inputs, and under loom.

use std::time::Duration;

use super::{
    controller::Settings,
    state::{Core, Outcome},
};
use crate::clock::Instant;

const SETTINGS: Settings = Settings { initial: 20, min: 1, max: 1_000, tolerance: 1.5 };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(not(palisade_loom))]
mod exact {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;
    use crate::adaptive::{
        controller::{Cause, Controller, Seen},
        state::Closed,
        window::{Sums, Window},
    };

    /// A controller to which windows are told.
    struct Told {
        controller: Controller,
        now: Instant,
    }

    impl Told {
        fn new(settings: Settings) -> Self {
            let now = Instant::now();
            Self { controller: Controller::new(settings, 1, now), now }
        }

        fn window(&mut self, seen: Seen) -> Option<Cause> {
            self.now = self.now + ms(100);
            self.controller.close(seen, self.now).decreased
        }

        /// A window of a hundred calls of so many milliseconds, which used the limit.
        fn full(&mut self, millis: f64) -> Option<Cause> {
            let most_in_flight = self.limit();
            self.window(Seen { samples: 100, latency: millis / 1e3, most_in_flight, ..Seen::default() })
        }

        fn dropped(&mut self, drops: u32, samples: u32) -> Option<Cause> {
            let most_in_flight = self.limit();
            self.window(Seen { samples, latency: 0.01, drops, most_in_flight, ..Seen::default() })
        }

        fn limit(&self) -> u32 {
            self.controller.limit()
        }
    }

    #[test]
    fn ada02_a_limit_of_which_not_half_is_used_does_not_grow() {
        for initial in [1, 2, 20] {
            let mut told = Told::new(Settings { initial, ..SETTINGS });
            for _ in 0..1_000 {
                told.window(Seen { samples: 100, latency: 0.001, most_in_flight: 1, ..Seen::default() });
            }
            assert!(told.limit() <= initial.max(3), "{initial}: {}", told.limit());
        }
    }

    #[test]
    fn ada04_a_burst_of_ten_errors_takes_little_off_a_high_limit() {
        for samples in [0, 1, 100] {
            let mut told = Told::new(Settings { initial: 1_000, ..SETTINGS });
            told.dropped(10, samples);
            assert!(told.limit() >= 900, "{}", told.limit());
            // Where they fall into two windows it is not much more.
            let mut told = Told::new(Settings { initial: 1_000, ..SETTINGS });
            told.dropped(5, samples);
            told.dropped(5, samples);
            assert!(told.limit() >= 900, "{}", told.limit());
        }
    }

    #[test]
    fn drops_take_a_tenth_and_at_most_half_a_window() {
        let after = |drops, samples| {
            let mut told = Told::new(Settings { initial: 100, ..SETTINGS });
            told.dropped(drops, samples).map(|cause| (cause, told.limit()))
        };
        assert_eq!(after(50, 450), Some((Cause::Drops, 90)));
        assert_eq!(after(1_000_000, 0), Some((Cause::Drops, 50)));
        // Two of ten, or less than two in a hundred, may be chance.
        assert_eq!(after(2, 8), None);
        assert_eq!(after(9, 991), None);
    }

    #[test]
    fn no_window_takes_more_than_half() {
        let mut told = Told::new(Settings { initial: 100, ..SETTINGS });
        told.full(1.0);
        let before = told.limit();
        told.window(Seen { samples: 10, latency: 10.0, drops: 1_000, most_in_flight: 100, others: 0 });
        assert!(told.limit() >= before / 2, "{} of {before}", told.limit());
    }

    /// concurrency-limits#137: a latency that is always the same looks like a service with nothing to do.
    #[test]
    fn windows_without_a_success_never_raise_the_limit() {
        let mut told = Told::new(SETTINGS);
        told.full(10.0);
        let mut last = told.limit();
        for _ in 0..100 {
            told.dropped(20, 0);
            assert!(told.limit() <= last);
            last = told.limit();
        }
        assert_eq!(last, 1);
    }

    #[test]
    fn a_limit_of_1_goes_up_whatever_the_latency() {
        let mut told = Told::new(SETTINGS);
        told.full(1.0);
        (0..20).for_each(|_| assert!(told.dropped(50, 0).is_some() || told.limit() == 1));
        told.full(10_000.0);
        assert_eq!(told.limit(), 2);
    }

    #[test]
    fn a_learned_limit_is_forgotten_when_it_is_not_used() {
        let mut told = Told::new(SETTINGS);
        (0..14).for_each(|_| {
            told.full(1.0);
        });
        assert!(told.limit() > 500, "{}", told.limit());
        let one = Seen { samples: 10, latency: 0.001, most_in_flight: 1, ..Seen::default() };
        told.window(one);
        assert!(told.limit() > 500, "not at once: {}", told.limit());
        (0..600).for_each(|_| {
            told.window(one);
        });
        assert_eq!(told.limit(), 20);
        // Nor does it outlive a night without calls.
        (0..14).for_each(|_| {
            told.full(1.0);
        });
        told.now = told.now + Duration::from_secs(30_000);
        told.window(one);
        assert_eq!(told.limit(), 20);
    }

    #[test]
    fn what_an_operator_holds_stays_and_goes_on_from_there() {
        let mut told = Told::new(SETTINGS);
        told.controller.hold(Some(5_000));
        (0..10).for_each(|_| assert_eq!(told.dropped(100, 0), None));
        assert_eq!(told.limit(), 5_000);
        told.controller.hold(None);
        assert_eq!(told.limit(), 1_000);
        told.controller.set_bounds(3, 7);
        assert_eq!(told.limit(), 7);
        (0..10).for_each(|_| {
            told.dropped(100, 0);
        });
        assert_eq!(told.limit(), 3);
    }

    #[test]
    fn bounds_that_were_narrow_for_a_while_leave_nothing_behind() {
        let mut told = Told::new(SETTINGS);
        told.controller.set_bounds(1, 2);
        told.controller.set_bounds(1, 1_000);
        let two = Seen { samples: 100, latency: 0.001, most_in_flight: 2, ..Seen::default() };
        (0..100).for_each(|_| {
            told.window(Seen { most_in_flight: told.limit().min(10), ..two });
        });
        (0..600).for_each(|_| {
            told.window(two);
        });
        assert_eq!(told.limit(), 20, "the initial limit, which is more than five times what is used");
    }

    #[test]
    fn one_call_that_takes_for_ever_hides_no_others() {
        let window = Window::new();
        (0..99).for_each(|_| window.add_latency(ms(10)));
        window.add_latency(Duration::from_secs(100_000));
        window.add_other();
        window.add_drop();
        let Sums { samples, latency, others, drops } = window.take();
        assert_eq!((samples, others, drops), (100, 1, 1));
        assert!((0.009..0.011).contains(&latency), "{latency}");
        assert_eq!(window.take(), Sums::default());
    }

    #[test]
    fn a_mean_is_right_to_an_eighth() {
        for nanos in (0..60).map(|doublings| 1_u64 << doublings).filter(|nanos| *nanos < 60_000_000_000) {
            let window = Window::new();
            let exact = Duration::from_nanos(nanos);
            window.add_latency(exact);
            let mean = window.take().latency;
            assert!(
                (mean - exact.as_secs_f64()).abs() <= exact.as_secs_f64() / 8.0 + 1e-6,
                "{nanos}: {mean}"
            );
        }
    }

    /// Calls of a core at moments of the test's choice.
    struct Driven {
        core: Core,
        now: Instant,
    }

    impl Driven {
        fn new() -> Self {
            let now = Instant::now();
            Self { core: Core::new(SETTINGS, 1, now), now }
        }

        /// Calls that begin together and end together, so much later.
        fn calls(&mut self, calls: u32, latency: Duration, outcome: Outcome) -> Vec<Closed> {
            let started = self.now;
            let taken = (0..calls).filter(|_| self.core.take()).count();
            self.now = self.now + latency;
            let closed = (0..taken)
                .filter_map(|_| {
                    let closed = self.core.end(started, outcome, self.now);
                    self.core.give_back();
                    closed
                })
                .collect();
            assert_eq!(self.core.figures().in_flight, 0);
            closed
        }
    }

    #[test]
    fn calls_that_their_callers_give_up_count_once_they_are_old() {
        let mut driven = Driven::new();
        driven.calls(5, ms(999), Outcome::GivenUp);
        assert_eq!(driven.core.figures().drops, 0);
        driven.calls(5, ms(1_001), Outcome::GivenUp);
        assert_eq!(driven.core.figures().drops, 5);
        for _ in 0..100 {
            driven.calls(10, ms(10), Outcome::Success);
        }
        driven.calls(5, ms(15), Outcome::GivenUp);
        assert_eq!(driven.core.figures().drops, 5);
        driven.calls(5, ms(25), Outcome::GivenUp);
        assert_eq!(driven.core.figures().drops, 10);
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let mut driven = Driven::new();
        for _ in 0..1_000 {
            driven.calls(20, ms(1), Outcome::Neutral);
        }
        let figures = driven.core.figures();
        assert_eq!((figures.limit, figures.base, figures.drops), (20, None, 0));
    }

    #[test]
    fn a_clock_that_stands_still_ends_no_window_and_one_that_jumps_does_no_harm() {
        let mut driven = Driven::new();
        for _ in 0..10_000 {
            assert!(driven.calls(20, Duration::ZERO, Outcome::Success).is_empty());
        }
        assert_eq!(driven.core.figures().limit, 20);
        let day = Duration::from_secs(86_400);
        for _ in 0..50 {
            driven.calls(20, ms(10), Outcome::Success);
        }
        driven.now = driven.now + day;
        driven.calls(20, day * 365, Outcome::Success);
        driven.now = driven.now - day;
        for _ in 0..2_000 {
            driven.calls(20, ms(10), Outcome::Success);
        }
        driven.now = driven.now + day * 2;
        for _ in 0..2_000 {
            driven.calls(20, ms(10), Outcome::Success);
        }
        let figures = driven.core.figures();
        assert!(figures.limit >= 10 && figures.recent.is_some_and(|recent| recent < 0.02), "{figures:?}");
    }

    #[test]
    fn a_raised_limit_lets_as_many_in_as_there_is_room_for() {
        let core = Core::new(Settings { initial: 1, ..SETTINGS }, 1, Instant::now());
        assert!(core.take());
        let places: Vec<_> = (0..4).map(|_| core.join()).collect();
        assert!(places.iter().all(|place| core.in_turn(*place, Waker::noop()).is_pending()));
        core.steer(Instant::now(), |controller| controller.hold(Some(3)));
        assert_eq!((core.figures().in_flight, core.figures().waiting), (3, 2));
        // One that was given a place goes away, and the next one has it.
        core.leave(places[0]);
        assert!(core.in_turn(places[1], Waker::noop()).is_ready());
        assert!(core.in_turn(places[2], Waker::noop()).is_ready());
        assert!(core.in_turn(places[3], Waker::noop()).is_pending());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take,
        End(prop::sample::Index, u8),
        Wait(u64),
        Bounds(u32, u32),
        Hold(Option<u32>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            20 => Just(Step::Take),
            20 => (any::<prop::sample::Index>(), 0..6_u8).prop_map(|(call, outcome)| Step::End(call, outcome)),
            10 => (0..40_000_000_u64).prop_map(Step::Wait),
            1 => (0..100_000_000_000_000_u64).prop_map(Step::Wait),
            1 => (1..50_u32, 0..500_u32).prop_map(|(min, more)| Step::Bounds(min, min + more)),
            1 => prop::option::of(1..600_u32).prop_map(Step::Hold),
        ];
        prop::collection::vec(step, 0..600)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_limit_is_within_its_bounds_and_holds(steps in steps(), initial in 1..100_u32) {
            let mut now = Instant::now();
            let core = Core::new(Settings { initial, max: 100, ..SETTINGS }, 1, now);
            let (mut bounds, mut held) = ((1, 100), None);
            let mut calls = Vec::new();
            for step in steps {
                match step {
                    Step::Take => {
                        if core.take() {
                            calls.push(now);
                            prop_assert!(core.figures().in_flight <= core.figures().limit);
                        } else {
                            prop_assert!(core.figures().in_flight >= core.figures().limit);
                        }
                    }
                    Step::End(index, outcome) if !calls.is_empty() => {
                        let started = calls.swap_remove(index.index(calls.len()));
                        let outcome = match outcome {
                            0..3 => Outcome::Success,
                            3 => Outcome::Dropped,
                            4 => Outcome::GivenUp,
                            _ => Outcome::Neutral,
                        };
                        if let Some(closed) = core.end(started, outcome, now) {
                            prop_assert!(closed.base.is_none_or(f64::is_finite));
                            prop_assert!(closed.recent.is_none_or(f64::is_finite));
                            prop_assert!(closed.verdict.decreased.is_none() || held.is_none());
                        }
                        core.give_back();
                    }
                    Step::End(..) => {}
                    Step::Wait(nanos) => now = now + Duration::from_nanos(nanos),
                    Step::Bounds(min, max) => {
                        bounds = (min, max);
                        core.steer(now, |controller| controller.set_bounds(min, max));
                    }
                    Step::Hold(limit) => {
                        held = limit;
                        core.steer(now, |controller| controller.hold(limit));
                    }
                }
                let figures = core.figures();
                match held {
                    Some(held) => prop_assert_eq!(figures.limit, held),
                    None => prop_assert!((bounds.0..=bounds.1).contains(&figures.limit), "{:?}", figures),
                }
                prop_assert_eq!(figures.in_flight as usize, calls.len());
            }
        }
    }
}

#[cfg(palisade_loom)]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::adaptive::window::Window;

    /// Two calls end when the window is over: one of them closes it, and both are counted in one window.
    #[test]
    fn loom_a_window_is_closed_once_and_no_call_counts_twice() {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(3);
        bounds.check(|| {
            let start = Instant::now();
            let core = Arc::new(Core::new(SETTINGS, 1, start));
            let late = start + Duration::from_secs(2);
            let end = move |core: &Core| {
                assert!(core.take());
                let closed = core.end(start, Outcome::Success, late);
                core.give_back();
                u32::from(closed.is_some())
            };
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || end(&core))
            };
            let closed = end(&core) + other.join().unwrap();
            assert_eq!(closed, 1, "once, whoever it was");
            assert_eq!(core.figures().in_flight, 0);
        });
    }

    #[test]
    fn loom_what_is_counted_while_a_window_is_emptied_is_in_it_or_in_the_next() {
        loom::model(|| {
            let window = Arc::new(Window::new());
            let other = {
                let window = Arc::clone(&window);
                thread::spawn(move || {
                    window.add_latency(ms(1));
                    window.add_drop();
                })
            };
            let first = window.take();
            other.join().unwrap();
            let second = window.take();
            assert_eq!((first.samples + second.samples, first.drops + second.drops), (1, 1));
        });
    }

    /// An operator raises the limit while a call ends and another waits.
    #[test]
    fn loom_a_limit_that_is_steered_while_calls_end_leaves_nobody_waiting() {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(2);
        bounds.check(|| {
            let start = Instant::now();
            let core = Arc::new(Core::new(Settings { initial: 1, ..SETTINGS }, 1, start));
            assert!(core.take());
            let place = core.join();
            let operator = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.steer(start, |controller| controller.hold(Some(2))))
            };
            core.end(start, Outcome::Success, start + Duration::from_secs(2));
            core.give_back();
            operator.join().unwrap();
            assert!(core.in_turn(place, std::task::Waker::noop()).is_ready());
            core.give_back();
            assert_eq!((core.figures().in_flight, core.figures().waiting), (0, 0));
        });
    }
}
