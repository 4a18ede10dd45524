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
/// A call takes one with [`take`](Self::take), or joins the line and is given one [`in_turn`](Self::in_turn). A place that comes free
/// goes to the front of the line at once, before that is woken: one that never looks holds a place, as it would in a call, and nobody
/// behind it waits for it. The limit may be shared with others, and moved at any time.
#[derive(Debug)]
pub(crate) struct Places {
    // Its half of the word counts the calls in flight, and the places that were given to somebody who has not looked yet.
    line: Line,
    limit: Arc<AtomicU32>,
}

impl Places {
    pub(crate) fn new(limit: Arc<AtomicU32>) -> Self {
        Self { line: Line::new(), limit }
    }

    /// Takes a place if there is one, and nobody waits for it. Tells how many are taken then.
    #[inline]
    pub(crate) fn take(&self) -> Option<u32> {
        let limit = self.limit();
        self.line.add_owned(|waiting, in_flight| waiting == 0 && in_flight < limit)
    }

    /// Joins the line if fewer than `most` wait. It is left when the turn has come, or else with [`leave`](Self::leave).
    pub(crate) fn join(&self, most: u32) -> Result<u32, Full> {
        let Joined { place, .. } = self.line.join(1, most)?;
        // One may have come free before anybody was seen to wait for it.
        self.hand_out();
        Ok(place)
    }

    /// Ready once the one who stands at `place` in the line has been given a place, which it then has to give back. It is not in line
    /// any more then, and is woken when that happens.
    pub(crate) fn in_turn(&self, place: u32, waker: &Waker) -> Poll<()> {
        if self.line.is_given(place, waker) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Leaves the line before the turn was seen to come. A place that was given goes to the next one.
    pub(crate) fn leave(&self, place: u32) {
        if self.line.give_up(place) {
            self.give_back();
        }
    }

    /// Gives a place back, which goes to the front of the line if there is room for it below the limit.
    #[inline]
    pub(crate) fn give_back(&self) {
        let (waiting, _) = self.line.subtract_owned();
        // Nobody overtakes those who wait: what has come free is still there.
        if waiting > 0 {
            self.hand_out();
        }
    }

    /// Gives those in line what there is room for: to be called after the limit was raised.
    pub(crate) fn hand_out(&self) {
        self.line.hand_over(|in_flight| in_flight < self.limit());
    }

    #[inline]
    fn limit(&self) -> u32 {
        self.limit.load(Acquire)
    }

    /// Moves the limit. Calls in flight finish whatever it is.
    pub(crate) fn set_limit(limit: &AtomicU32, to: u32) {
        limit.store(to, Release);
    }

    /// How many places are taken.
    #[inline]
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
        assert_eq!([places.take(), places.take(), places.take()], [Some(1), Some(2), None]);
        Places::set_limit(&limit, 1);
        places.give_back();
        assert_eq!(places.take(), None, "the limit was lowered, and one is in flight");
        places.give_back();
        assert_eq!(places.take(), Some(1));
    }

    #[test]
    fn who_comes_later_does_not_overtake_the_line() {
        let (places, _) = places(1);
        assert!(places.take().is_some());
        let first = places.join(9).unwrap();
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Pending);
        places.give_back();
        assert_eq!(places.take(), None);
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Ready(()));
        assert_eq!((places.in_flight(), places.waiting()), (1, 0));
    }

    #[test]
    fn who_does_not_look_holds_one_place_and_holds_up_nobody() {
        let (places, limit) = places(1);
        assert!(places.take().is_some());
        let [idle, second, third] = [(); 3].map(|()| places.join(9).unwrap());
        places.give_back();
        assert_eq!((places.in_flight(), places.waiting()), (1, 2));
        Places::set_limit(&limit, 2);
        places.hand_out();
        assert_eq!(places.in_turn(second, Waker::noop()), Poll::Ready(()));
        // It goes away without having used what it was given.
        places.leave(idle);
        assert_eq!(places.in_turn(third, Waker::noop()), Poll::Ready(()));
        assert_eq!((places.in_flight(), places.waiting()), (2, 0));
    }

    #[test]
    fn places_above_a_lowered_limit_are_not_handed_on() {
        let (places, limit) = places(3);
        (0..3).for_each(|_| assert!(places.take().is_some()));
        let [first, second] = [(); 2].map(|()| places.join(9).unwrap());
        Places::set_limit(&limit, 1);
        places.give_back();
        places.give_back();
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Pending);
        places.give_back();
        assert_eq!(places.in_turn(first, Waker::noop()), Poll::Ready(()));
        assert_eq!(places.in_turn(second, Waker::noop()), Poll::Pending);
        assert_eq!((places.in_flight(), places.waiting()), (1, 1));
    }

    #[test]
    fn threads_together_are_never_more_than_the_limit() {
        let (places, limit) = places(3);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if places.take().is_some() {
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
        Look(prop::sample::Index),
        Limit(u32),
    }

    proptest! {
        /// The places beside a queue that is served after each step. Who was given a place looks sooner or later.
        #[test]
        fn the_places_agree_with_a_plain_queue(steps in prop::collection::vec(
            prop_oneof![
                3 => Just(Step::Arrive),
                3 => Just(Step::Finish),
                1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
                3 => any::<prop::sample::Index>().prop_map(Step::Look),
                1 => (1..5_u32).prop_map(Step::Limit),
            ],
            0..300,
        )) {
            let (places, limit) = places(2);
            let (mut model_limit, mut model_in_flight) = (2, 0);
            let mut line: VecDeque<(u32, Arc<Woken>)> = VecDeque::new();
            let (mut model_waiting, mut given) = (0, 0);
            for step in steps {
                match step {
                    Step::Arrive => {
                        let free = model_waiting == 0 && model_in_flight < model_limit;
                        prop_assert_eq!(places.take().is_some(), free);
                        if free {
                            model_in_flight += 1;
                        } else if let Ok(place) = places.join(6) {
                            model_waiting += 1;
                            let woken = Arc::new(Woken(AtomicBool::new(false)));
                            prop_assert!(places.in_turn(place, &Arc::clone(&woken).into()).is_pending());
                            line.push_back((place, woken));
                        } else {
                            prop_assert_eq!(model_waiting, 6);
                        }
                    }
                    // What was given and not looked at is not in a call.
                    Step::Finish if model_in_flight as usize > given => {
                        model_in_flight -= 1;
                        places.give_back();
                    }
                    Step::GiveUp(index) if !line.is_empty() => {
                        let index = index.index(line.len());
                        places.leave(line.remove(index).unwrap().0);
                        // Those in front have been given a place, and have not looked.
                        if index < given {
                            given -= 1;
                            model_in_flight -= 1;
                        } else {
                            model_waiting -= 1;
                        }
                    }
                    Step::Limit(to) => {
                        model_limit = to;
                        Places::set_limit(&limit, to);
                        places.hand_out();
                    }
                    Step::Look(index) if !line.is_empty() => {
                        let index = index.index(line.len());
                        let (place, woken) = line[index].clone();
                        let ready = places.in_turn(place, &woken.into()).is_ready();
                        prop_assert_eq!(ready, index < given);
                        if ready {
                            line.remove(index);
                            given -= 1;
                        }
                    }
                    Step::Look(_) | Step::Finish | Step::GiveUp(_) => {}
                }
                while model_waiting > 0 && model_in_flight < model_limit {
                    model_waiting -= 1;
                    model_in_flight += 1;
                    given += 1;
                }
                for (index, (_, woken)) in line.iter().enumerate() {
                    prop_assert_eq!(woken.0.load(SeqCst), index < given, "only who was given one is woken");
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
            // Three threads and three preemptions take a minute.
            bounds.preemption_bound = Some(if threads > 2 { 2 } else { 3 });
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
            if self.places.take().is_none() {
                let place = self.places.join(9).unwrap();
                block_on(poll_fn(|cx| self.places.in_turn(place, cx.waker())));
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

    /// The front is given the place, and gives up without having looked.
    #[test]
    fn loom_who_gives_up_loses_nobody_a_place() {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(2);
        bounds.check(|| {
            let places = Arc::new(Places::new(Arc::new(AtomicU32::new(1))));
            assert!(places.take().is_some());
            let (first, next) = (places.join(9).unwrap(), places.join(9).unwrap());
            assert!(places.in_turn(first, Waker::noop()).is_pending());
            let waiter = {
                let places = Arc::clone(&places);
                thread::spawn(move || {
                    block_on(poll_fn(|cx| places.in_turn(next, cx.waker())));
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
                model.places.hand_out();
                model.places.give_back();
            } else {
                model.call(2);
            }
        });
    }

    /// Nobody gives a place back until it is in.
    #[test]
    fn loom_who_joins_while_the_limit_is_raised_is_let_in() {
        loom::model(|| {
            let limit = Arc::new(AtomicU32::new(1));
            let places = Arc::new(Places::new(Arc::clone(&limit)));
            assert!(places.take().is_some());
            let other = {
                let places = Arc::clone(&places);
                thread::spawn(move || {
                    if places.take().is_none() {
                        let place = places.join(9).unwrap();
                        block_on(poll_fn(|cx| places.in_turn(place, cx.waker())));
                    }
                    places.give_back();
                })
            };
            Places::set_limit(&limit, 2);
            places.hand_out();
            other.join().unwrap();
            places.give_back();
            assert_eq!((places.in_flight(), places.waiting()), (0, 0));
        });
    }

    #[test]
    fn loom_a_limit_that_moves_while_calls_end_loses_no_wake_up() {
        Model::check(2, 3, |model, number| {
            if number == 0 {
                Places::set_limit(&model.limit, 1);
                return model.places.hand_out();
            }
            model.call(2);
        });
    }
}
