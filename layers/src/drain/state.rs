//! Counts who is inside, closes the door, and tells when the last one has left.

use std::{collections::BTreeMap, mem::take, sync::OnceLock, task::Waker, time::Duration};

use crossbeam_utils::CachePadded;

use crate::{
    clock::Instant,
    handle::HANDLES,
    sync::{
        Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
        lock,
    },
};

/// A count for each handle that threads have. A model has fewer.
pub(super) const SHARDS: usize = if cfg!(palisade_loom) { 2 } else { HANDLES };

/// Nobody enters this shard any more, except by leave of somebody inside.
const CLOSED: u64 = 1 << 63;
/// The drain has begun: who enters looks at the time.
const GRACE: u64 = 1 << 62;
/// Those inside.
const COUNT: u64 = GRACE - 1;

/// Counts in shards, so that threads do not wait for each other's caches.
///
/// A shard is one word, in which the door and the count change together: whoever entered did so before the door was closed
/// and was counted then. Once a shard is closed and empty it stays so, because the only ones who can still be added to it are
/// those who come along with somebody inside it. So the shards can be looked at one after the other.
#[derive(Debug)]
pub(super) struct Core {
    shards: [CachePadded<AtomicU64>; SHARDS],
    begun: OnceLock<Begun>,
    book: Mutex<Book>,
}

/// When the drain began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) at: Instant,
    /// Until then new calls are let in.
    pub(super) closes_at: Instant,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    Begun,
    Closed,
    Ended,
}

#[derive(Debug, Default)]
struct Book {
    // All shards are.
    closed: bool,
    // When the last one left, after that.
    ended: Option<Instant>,
    timed_out: bool,
    // Each belongs to a future, or to a service, that removes it.
    watchers: BTreeMap<u64, Waker>,
    next: u64,
}

impl Core {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| CachePadded::new(AtomicU64::new(0))),
            begun: OnceLock::new(),
            book: Mutex::new(Book::default()),
        }
    }

    #[inline]
    fn shard(&self, shard: usize) -> &AtomicU64 {
        &self.shards[shard % SHARDS]
    }

    /// Lets one in, unless the drain has begun. Who is in leaves by [`leave`](Self::leave), at the same shard.
    #[inline]
    pub(super) fn enter(&self, shard: usize) -> bool {
        self.add(shard, |word| word < GRACE)
    }

    /// Lets one in who came after the drain had begun, where the door is open still.
    pub(super) fn enter_late(&self, shard: usize, now: Instant) -> bool {
        !self.is_due(now) && self.add(shard, |word| word < CLOSED)
    }

    /// Lets one in who belongs to somebody inside, whoever that is: tells the shard, or that there is nobody.
    pub(super) fn enter_along(&self, from: usize) -> Option<usize> {
        (from..from + SHARDS)
            .map(|shard| shard % SHARDS)
            .find(|shard| self.add(*shard, |word| word & COUNT > 0))
    }

    /// Lets one in who belongs to somebody inside this shard.
    #[inline]
    pub(super) fn enter_with(&self, shard: usize) {
        self.shard(shard).fetch_add(1, Relaxed);
    }

    /// Adding needs no order of its own: what counts is whether it came before the door was closed, in the order of this one
    /// word. That a refused one sees why does.
    #[inline]
    fn add(&self, shard: usize, may: impl Fn(u64) -> bool) -> bool {
        let shard = self.shard(shard);
        let mut word = shard.load(Acquire);
        while may(word) {
            match shard.compare_exchange_weak(word, word + 1, Relaxed, Acquire) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Lets one out. Tells whether it was the last of a closed shard: [`settle`](Self::settle) has to be called then.
    #[inline]
    pub(super) fn leave(&self, shard: usize) -> bool {
        let word = self.shard(shard).fetch_sub(1, Release);
        debug_assert!(word & COUNT > 0, "more have left than entered");
        word >= CLOSED && word & COUNT == 1
    }

    /// Begins the drain, and tells whether it had not begun before. Without a grace the caller closes it then.
    pub(super) fn start(&self, now: Instant, grace: Duration) -> bool {
        let first = self.begun.set(Begun { at: now, closes_at: now + grace }).is_ok();
        if !grace.is_zero() {
            for shard in &self.shards {
                shard.fetch_or(GRACE, Release);
            }
            self.wake(|_| ());
        }
        first
    }

    /// Closes the door. Tells how long the drain took, if it is over with that.
    pub(super) fn close(&self, now: Instant) -> Option<Duration> {
        for shard in &self.shards {
            shard.fetch_or(CLOSED, Release);
        }
        self.look_for_the_end(now, true)
    }

    /// Notes the end if the last one has left, and wakes who waits. Tells how long the drain took, if it is over with that.
    #[cold]
    pub(super) fn settle(&self, now: Instant) -> Option<Duration> {
        self.look_for_the_end(now, false)
    }

    fn look_for_the_end(&self, now: Instant, closed: bool) -> Option<Duration> {
        // Under the lock: of two who leave two shards at the same time, the later one here sees that both are empty.
        let over = self.wake(|book| {
            book.closed |= closed;
            let over = book.closed && book.ended.is_none() && self.in_flight() == 0;
            if over {
                book.ended = Some(now);
            }
            over
        });
        let begun = self.begun.get().filter(|_| over)?;
        Some(now.saturating_duration_since(begun.at))
    }

    /// Changes the book, and wakes everybody. That happens as often as shards become empty once they are closed, at most.
    fn wake<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = lock(&self.book);
        let changed = change(&mut book);
        let watchers = take(&mut book.watchers);
        drop(book);
        for waker in watchers.into_values() {
            waker.wake();
        }
        changed
    }

    /// Whether the moment has come. If not, `waker` is woken at each change until then, or until `place` is
    /// [forgotten](Self::forget).
    pub(super) fn watch(&self, place: &mut Option<u64>, waker: &Waker, moment: Moment) -> bool {
        let mut book = lock(&self.book);
        let has_come = match moment {
            Moment::Begun => self.begun.get().is_some(),
            Moment::Closed => book.closed,
            Moment::Ended => book.ended.is_some(),
        };
        let old = if has_come {
            place.take().and_then(|place| book.watchers.remove(&place))
        } else {
            book.next += 1;
            let place = *place.get_or_insert(book.next);
            book.watchers.insert(place, waker.clone())
        };
        // A waker is dropped after the lock is: what that runs is not ours.
        drop(book);
        drop(old);
        has_come
    }

    /// Gives up a place among those who are woken.
    pub(super) fn forget(&self, place: u64) {
        let mut book = lock(&self.book);
        let old = book.watchers.remove(&place);
        drop(book);
        drop(old);
    }

    /// Notes that a wait for the end ran out, and tells whether none had before.
    pub(super) fn note_timeout(&self) -> bool {
        !std::mem::replace(&mut lock(&self.book).timed_out, true)
    }

    pub(super) fn begun(&self) -> Option<&Begun> {
        self.begun.get()
    }

    /// Whether the door is to be closed now, if it is not.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.begun.get().is_some_and(|begun| begun.closes_at <= now)
    }

    /// Whether nobody new can enter. Shards are closed in turns, and this is the last.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.shards[SHARDS - 1].load(Acquire) >= CLOSED
    }

    /// How long it took, if it is over.
    pub(super) fn took(&self) -> Option<Duration> {
        let ended = lock(&self.book).ended?;
        Some(ended.saturating_duration_since(self.begun.get()?.at))
    }

    /// Those inside. Exact once it is closed: what has been counted as none does not come back.
    pub(super) fn in_flight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.load(Acquire) & COUNT).sum()
    }

    #[cfg(test)]
    fn watchers(&self) -> usize {
        lock(&self.book).watchers.len()
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    impl Woken {
        fn new() -> (Arc<Self>, Waker) {
            let woken = Arc::new(Self(AtomicBool::new(false)));
            (Arc::clone(&woken), woken.into())
        }

        fn take(&self) -> bool {
            self.0.swap(false, std::sync::atomic::Ordering::SeqCst)
        }
    }

    #[test]
    fn the_last_one_out_of_a_closed_shard_is_told_so() {
        let (core, now) = (Core::new(), Instant::now());
        assert!(core.enter(0) && core.enter(0) && core.enter(1));
        assert!(!core.leave(1));
        core.start(now, Duration::ZERO);
        assert_eq!(core.close(now), None);
        assert!(!core.enter(0) && !core.enter(1) && !core.enter(SHARDS - 1));
        assert!(!core.leave(0));
        assert!(core.leave(0));
        assert_eq!(core.settle(now + SECOND), Some(SECOND));
        assert_eq!((core.settle(now + SECOND * 2), core.took()), (None, Some(SECOND)));
    }

    #[test]
    fn who_comes_along_is_counted_where_the_other_one_is() {
        let (core, now) = (Core::new(), Instant::now());
        assert!(core.enter(3));
        core.start(now, Duration::ZERO);
        core.close(now);
        assert_eq!(core.enter_along(5), Some(3));
        core.enter_with(3);
        assert!(!core.leave(3) && !core.leave(3) && core.leave(3));
        assert_eq!(core.enter_along(5), None);
    }

    #[test]
    fn those_who_wait_are_woken_when_it_gets_on_and_leave_nothing_behind() {
        let (core, now) = (Core::new(), Instant::now());
        let (woken, waker) = Woken::new();
        let (mut begun, mut ended, mut given_up) = (None, None, None);
        assert!(core.enter(0));
        assert!(!core.watch(&mut begun, &waker, Moment::Begun));
        assert!(!core.watch(&mut ended, &waker, Moment::Ended));
        assert!(!core.watch(&mut given_up, Waker::noop(), Moment::Closed));
        core.forget(given_up.unwrap());
        core.start(now, SECOND);
        assert!(woken.take());
        assert!(core.watch(&mut begun, &waker, Moment::Begun) && begun.is_none());
        assert!(!core.watch(&mut ended, &waker, Moment::Ended));
        assert!(!core.watch(&mut ended, &waker, Moment::Ended), "twice in the same place");
        assert_eq!(core.watchers(), 1);
        core.close(now);
        assert!(woken.take() && !core.watch(&mut ended, &waker, Moment::Ended));
        assert!(core.leave(0));
        core.settle(now);
        assert!(woken.take() && core.watch(&mut ended, &waker, Moment::Ended));
        assert_eq!(core.watchers(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(usize),
        Along(usize),
        With(prop::sample::Index),
        Leave(prop::sample::Index),
        Start { grace: bool },
        Wait,
    }

    proptest! {
        /// The shards beside a plain list of those who are inside.
        #[test]
        fn the_shards_agree_with_a_plain_list(steps in prop::collection::vec(
            prop_oneof![
                4 => (0..4_usize).prop_map(Step::Enter),
                2 => (0..4_usize).prop_map(Step::Along),
                1 => any::<prop::sample::Index>().prop_map(Step::With),
                6 => any::<prop::sample::Index>().prop_map(Step::Leave),
                1 => any::<bool>().prop_map(|grace| Step::Start { grace }),
                1 => Just(Step::Wait),
            ],
            0..200,
        )) {
            let (core, mut now) = (Core::new(), Instant::now());
            let mut inside: Vec<usize> = Vec::new();
            let (mut begun, mut closes_at) = (None, None);
            let mut ended = None;
            let (woken, waker) = Woken::new();
            let mut place = None;
            prop_assert!(!core.watch(&mut place, &waker, Moment::Ended));
            for step in steps {
                let closed = closes_at.is_some_and(|at| at <= now);
                match step {
                    Step::Enter(shard) => {
                        let entered = core.enter(shard) || core.enter_late(shard, now);
                        prop_assert_eq!(entered, !closed);
                        if entered {
                            inside.push(shard);
                        }
                    }
                    Step::Along(shard) if closed => {
                        let along = core.enter_along(shard);
                        prop_assert_eq!(along.is_some(), !inside.is_empty());
                        prop_assert!(along.is_none_or(|shard| inside.contains(&shard)));
                        inside.extend(along);
                    }
                    Step::With(index) if !inside.is_empty() => {
                        let shard = inside[index.index(inside.len())];
                        core.enter_with(shard);
                        inside.push(shard);
                    }
                    Step::Leave(index) if !inside.is_empty() => {
                        let shard = inside.swap_remove(index.index(inside.len()));
                        let last = core.leave(shard);
                        prop_assert_eq!(last, closed && !inside.contains(&shard));
                        if last {
                            let took = core.settle(now);
                            prop_assert_eq!(took.is_some(), inside.is_empty());
                            ended = took.or(ended);
                        }
                    }
                    Step::Start { grace } => {
                        let grace = if grace { SECOND * 2 } else { Duration::ZERO };
                        prop_assert_eq!(core.start(now, grace), begun.is_none());
                        begun.get_or_insert(now);
                        closes_at.get_or_insert(now + grace);
                    }
                    Step::Wait => now = now + SECOND,
                    Step::Along(_) | Step::With(_) | Step::Leave(_) => {}
                }
                if !closed && core.is_due(now) {
                    ended = core.close(now).or(ended);
                }
                prop_assert_eq!(core.is_closed(), closes_at.is_some_and(|at| at <= now));
                prop_assert_eq!(core.in_flight(), inside.len() as u64);
                prop_assert_eq!(core.took().is_some(), core.is_closed() && inside.is_empty());
                prop_assert_eq!(core.took(), ended);
                if place.is_some() && woken.take() {
                    prop_assert_eq!(core.watch(&mut place, &waker, Moment::Ended), ended.is_some());
                }
                prop_assert_eq!(place.is_none(), ended.is_some(), "a wake-up was lost");
            }
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod models {
    use std::{future::poll_fn, sync::Arc, task::Poll};

    use loom::{cell::UnsafeCell, future::block_on, thread};

    use super::*;

    /// What must not be touched once the drain has come to its end. loom sees to it: it knows no order but what the core makes.
    struct Model {
        core: Core,
        used: [UnsafeCell<u32>; 2],
        now: Instant,
    }

    const GRACE_PERIOD: Duration = Duration::from_secs(1);

    impl Model {
        /// Checked with threads of which each does what `each` says. The first one waits for the end, and then uses all alone.
        fn check(threads: usize, each: impl Fn(&Self, usize) + Clone + Send + Sync + 'static) {
            let mut bounds = loom::model::Builder::new();
            bounds.preemption_bound = Some(3);
            bounds.check(move || {
                let model = Arc::new(Self {
                    core: Core::new(),
                    used: [UnsafeCell::new(0), UnsafeCell::new(0)],
                    now: Instant::now(),
                });
                let others: Vec<_> = (0..threads)
                    .map(|number| {
                        let (model, each) = (Arc::clone(&model), each.clone());
                        thread::spawn(move || each(&model, number))
                    })
                    .collect();
                model.finish();
                for other in others {
                    other.join().unwrap();
                }
                assert_eq!((model.core.in_flight(), model.core.watchers()), (0, 0));
            });
        }

        fn start(&self) {
            self.core.start(self.now, Duration::ZERO);
            self.core.close(self.now);
        }

        /// Each thread has what it uses to itself, and the one who waits uses all.
        fn use_it(&self, number: usize) {
            self.used[number].with_mut(|_| ());
        }

        fn leave(&self, shard: usize) {
            if self.core.leave(shard) {
                self.core.settle(self.now);
            }
        }

        fn call(&self, number: usize) {
            if self.core.enter(number) {
                self.use_it(number);
                self.leave(number);
            }
        }

        fn finish(&self) {
            if self.core.begun().is_none() {
                self.start();
            }
            let mut place = None;
            block_on(poll_fn(|cx| {
                // As the futures do: the door may have been left open.
                if self.core.is_due(self.now) && !self.core.is_closed() {
                    self.core.close(self.now);
                }
                if self.core.watch(&mut place, cx.waker(), Moment::Ended) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }));
            self.use_it(0);
            self.use_it(1);
        }
    }

    #[test]
    fn loom_every_call_that_was_let_in_is_waited_for_and_none_comes_after() {
        Model::check(2, Model::call);
    }

    /// The same count for two threads, and two calls of one.
    #[test]
    fn loom_threads_that_share_a_count_are_waited_for() {
        Model::check(2, |model, number| {
            for _ in 0..2 {
                if model.core.enter(0) {
                    model.use_it(number);
                    model.leave(0);
                }
            }
        });
    }

    #[test]
    fn loom_what_comes_along_with_a_call_is_waited_for() {
        Model::check(1, |model, _| {
            if model.core.enter(1) {
                let along = model.core.enter_along(0).expect("somebody is inside");
                model.core.enter_with(along);
                model.leave(1);
                model.use_it(0);
                model.leave(along);
                model.use_it(1);
                model.leave(along);
            }
        });
    }

    /// It goes along with a call of another thread, if that is still there.
    #[test]
    fn loom_who_goes_along_with_a_stranger_is_waited_for_or_stays_out() {
        Model::check(2, |model, number| {
            if number == 0 {
                return model.call(0);
            }
            if let Some(along) = model.core.enter_along(1) {
                model.use_it(1);
                model.leave(along);
            }
        });
    }

    #[test]
    fn loom_whoever_has_started_it_lets_nobody_in_after_that() {
        Model::check(2, |model, number| {
            model.start();
            assert!(!model.core.enter(number) && !model.core.enter(1 - number));
        });
    }

    /// One call comes during the grace, one when it is over, and that one closes the door.
    #[test]
    fn loom_calls_during_the_grace_are_waited_for() {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(3);
        bounds.check(|| {
            let model = Arc::new(Model {
                core: Core::new(),
                used: [UnsafeCell::new(0), UnsafeCell::new(0)],
                now: Instant::now(),
            });
            assert!(model.core.start(model.now, GRACE_PERIOD));
            let early = {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    if model.core.enter(0) || model.core.enter_late(0, model.now) {
                        model.use_it(0);
                        model.leave(0);
                    }
                })
            };
            let late = {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    let now = model.now + GRACE_PERIOD;
                    assert!(!model.core.enter(1) && !model.core.enter_late(1, now));
                    model.core.close(now);
                })
            };
            let mut place = None;
            block_on(poll_fn(|cx| {
                let ended = model.core.watch(&mut place, cx.waker(), Moment::Ended);
                if ended { Poll::Ready(()) } else { Poll::Pending }
            }));
            model.use_it(0);
            model.use_it(1);
            early.join().unwrap();
            late.join().unwrap();
        });
    }
}
