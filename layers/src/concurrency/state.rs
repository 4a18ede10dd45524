//! So many at once: a count, a limit that may move, and a line.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::{
    line::{Full, Joined, Line},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
};

/// Places for calls in flight.
///
/// A call takes one with [`take`](Self::take), or joins the line and takes it [`in_turn`](Self::in_turn). Whoever gives one
/// back wakes the front of the line. The limit may be shared with others, and moved at any time.
#[derive(Debug)]
pub(crate) struct Places {
    // Its half of the word counts the calls in flight.
    line: Line,
    limit: Arc<AtomicU32>,
}

impl Places {
    pub(crate) fn new(limit: Arc<AtomicU32>) -> Self {
        Self { line: Line::new(), limit }
    }

    /// Takes a place if there is one, and nobody waits for it.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        let limit = self.limit();
        self.line.add_owned(|waiting, in_flight| waiting == 0 && in_flight < limit)
    }

    /// Joins the line if fewer than `most` wait. It is left with [`leave`](Self::leave), served or not.
    pub(crate) fn join(&self, most: u32) -> Result<u32, Full> {
        self.line.join(1, most).map(|Joined { place, .. }| place)
    }

    /// Takes a place for the one who stands at `place` in the line, if it is the front. It is woken when it may try again.
    pub(crate) fn in_turn(&self, place: u32, waker: &Waker) -> Poll<()> {
        // The limit is read after that, so that a limit that was raised before is seen, and one that is raised later wakes.
        if self.line.watch(place, waker, u64::MAX) {
            let limit = self.limit();
            if self.line.add_owned(|_, in_flight| in_flight < limit) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Leaves the line. Where there is a place for the next one it is woken.
    pub(crate) fn leave(&self, place: u32) {
        self.line.leave(place, |_, _| self.has_room());
    }

    /// Gives a place back, and tells how many are still in flight.
    #[inline]
    pub(crate) fn give_back(&self) -> u32 {
        let (waiting, in_flight) = self.line.subtract_owned();
        if waiting > 0 {
            self.wake();
        }
        in_flight
    }

    /// Wakes the front of the line if there is a place for it: to be called after the limit was raised.
    #[cold]
    pub(crate) fn wake(&self) {
        self.line.nudge(|_, _| self.has_room());
    }

    fn has_room(&self) -> bool {
        self.line.owned() < self.limit()
    }

    #[inline]
    fn limit(&self) -> u32 {
        self.limit.load(Acquire)
    }

    /// Moves the limit. Calls in flight finish whatever it is.
    pub(crate) fn set_limit(limit: &AtomicU32, to: u32) {
        limit.store(to, Release);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.line.owned()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.line.len()
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    fn places(limit: u32) -> (Places, Arc<AtomicU32>) {
        let limit = Arc::new(AtomicU32::new(limit));
        (Places::new(Arc::clone(&limit)), limit)
    }

    #[test]
    fn there_are_as_many_places_as_the_limit_says() {
        let (places, limit) = places(2);
        assert!(places.take() && places.take() && !places.take());
        Places::set_limit(&limit, 1);
        assert_eq!(places.give_back(), 1);
        assert!(!places.take(), "the limit was lowered, and one is in flight");
        assert_eq!(places.give_back(), 0);
        assert!(places.take());
    }

    #[test]
    fn who_comes_later_does_not_overtake_the_line() {
        let (places, _) = places(1);
        assert!(places.take());
        let first = places.join(9).unwrap();
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Pending);
        places.give_back();
        assert!(!places.take());
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Ready(()));
        places.leave(first);
        assert_eq!((places.in_flight(), places.waiting()), (1, 0));
    }

    #[test]
    fn threads_together_are_never_more_than_the_limit() {
        let (places, limit) = places(3);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if places.take() {
                            most.fetch_max(places.in_flight(), SeqCst);
                            places.give_back();
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= limit.load(SeqCst));
        assert_eq!((places.in_flight(), places.waiting()), (0, 0));
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive,
        Finish,
        GiveUp(prop::sample::Index),
        Limit(u32),
    }

    proptest! {
        /// The places beside a queue that is looked through after each step. Here only who was woken looks.
        #[test]
        fn the_places_agree_with_a_plain_queue(steps in prop::collection::vec(
            prop_oneof![
                3 => Just(Step::Arrive),
                3 => Just(Step::Finish),
                1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
                1 => (1..5_u32).prop_map(Step::Limit),
            ],
            0..300,
        )) {
            let (places, limit) = places(2);
            let (mut model_limit, mut model_in_flight) = (2, 0);
            let mut line: VecDeque<(u32, Arc<Woken>)> = VecDeque::new();
            let mut model_waiting = 0;
            for step in steps {
                match step {
                    Step::Arrive => {
                        let free = model_waiting == 0 && model_in_flight < model_limit;
                        prop_assert_eq!(places.take(), free);
                        if free {
                            model_in_flight += 1;
                        } else if let Ok(place) = places.join(6) {
                            model_waiting += 1;
                            line.push_back((place, Arc::new(Woken(AtomicBool::new(true)))));
                        } else {
                            prop_assert_eq!(model_waiting, 6);
                        }
                    }
                    Step::Finish if model_in_flight > 0 => {
                        model_in_flight -= 1;
                        prop_assert_eq!(places.give_back(), model_in_flight);
                    }
                    Step::GiveUp(index) if !line.is_empty() => {
                        places.leave(line.remove(index.index(line.len())).unwrap().0);
                        model_waiting -= 1;
                    }
                    Step::Limit(to) => {
                        model_limit = to;
                        Places::set_limit(&limit, to);
                        places.wake();
                    }
                    Step::Finish | Step::GiveUp(_) => {}
                }
                while model_waiting > 0 && model_in_flight < model_limit {
                    model_waiting -= 1;
                    model_in_flight += 1;
                }
                while let Some(index) = line.iter().position(|(_, woken)| woken.0.swap(false, SeqCst)) {
                    let (place, woken) = line[index].clone();
                    if places.in_turn(place, &woken.into()).is_ready() {
                        prop_assert_eq!(index, 0, "out of turn");
                        line.pop_front();
                        places.leave(place);
                    }
                }
                prop_assert_eq!(places.in_flight(), model_in_flight);
                prop_assert_eq!(places.waiting(), model_waiting);
            }
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod models {
    use std::future::poll_fn;

    use loom::{future::block_on, thread};

    use super::*;
    use crate::sync::atomic::Ordering::Relaxed;

    struct Model {
        places: Places,
        limit: Arc<AtomicU32>,
        inside: AtomicU32,
    }

    impl Model {
        /// Checked with `threads` threads, of which each does what `each` says.
        fn check(limit: u32, threads: usize, each: impl Fn(&Self, usize) + Clone + Send + Sync + 'static) {
            let mut bounds = loom::model::Builder::new();
            bounds.preemption_bound = Some(3);
            bounds.check(move || {
                let limit = Arc::new(AtomicU32::new(limit));
                let model = Arc::new(Self {
                    places: Places::new(Arc::clone(&limit)),
                    limit,
                    inside: AtomicU32::new(0),
                });
                let others: Vec<_> = (1..threads)
                    .map(|number| {
                        let (model, each) = (Arc::clone(&model), each.clone());
                        thread::spawn(move || each(&model, number))
                    })
                    .collect();
                each(&model, 0);
                for other in others {
                    other.join().unwrap();
                }
                assert_eq!((model.places.in_flight(), model.places.waiting()), (0, 0));
            });
        }

        fn enter(&self) {
            if !self.places.take() {
                let place = self.places.join(9).unwrap();
                block_on(poll_fn(|cx| self.places.in_turn(place, cx.waker())));
                self.places.leave(place);
            }
        }

        fn call(&self, most: u32) {
            self.enter();
            assert!(self.inside.fetch_add(1, Relaxed) < most, "more than the limit");
            self.inside.fetch_sub(1, Relaxed);
            self.places.give_back();
        }
    }

    #[test]
    fn loom_the_limit_holds_and_everybody_is_served() {
        Model::check(1, 3, |model, _| model.call(1));
    }

    /// The front is woken when the place is given back, and gives up without having looked.
    #[test]
    fn loom_who_gives_up_loses_nobody_a_wake_up() {
        loom::model(|| {
            let places = Arc::new(Places::new(Arc::new(AtomicU32::new(1))));
            assert!(places.take());
            let (first, next) = (places.join(9).unwrap(), places.join(9).unwrap());
            assert!(places.in_turn(first, Waker::noop()).is_pending());
            let waiter = {
                let places = Arc::clone(&places);
                thread::spawn(move || {
                    block_on(poll_fn(|cx| places.in_turn(next, cx.waker())));
                    places.leave(next);
                    places.give_back();
                })
            };
            let releaser = {
                let places = Arc::clone(&places);
                thread::spawn(move || places.give_back())
            };
            places.leave(first);
            waiter.join().unwrap();
            releaser.join().unwrap();
            assert_eq!((places.in_flight(), places.waiting()), (0, 0));
        });
    }

    /// One is inside for good unless the limit is raised, and the others have to get past it.
    #[test]
    fn loom_a_raised_limit_wakes_who_waits() {
        Model::check(1, 2, |model, number| {
            if number == 0 {
                model.enter();
                Places::set_limit(&model.limit, 2);
                model.places.wake();
                model.places.give_back();
            } else {
                model.call(2);
            }
        });
    }

    #[test]
    fn loom_a_limit_that_moves_while_calls_end_loses_no_wake_up() {
        Model::check(2, 3, |model, number| {
            if number == 0 {
                Places::set_limit(&model.limit, 1);
                return model.places.wake();
            }
            model.call(2);
        });
    }
}
