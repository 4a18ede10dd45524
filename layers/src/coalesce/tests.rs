//! The flights beside a model, and under every interleaving of threads.

use std::{
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use super::{
    followers::{Followers, Given, Seat},
    state::{Boarded, Flight, Flights},
};
use crate::clock::Instant;

/// Keys and answers are numbers; a call is the number of the one who made it.
type Numbers = Flights<u32, u32, u32>;

const ALWAYS: Duration = Duration::from_secs(1_000);

enum Caller {
    Leads(Flight, Option<Arc<Followers<u32, u32>>>),
    Follows(Flight, Seat<u32, u32>),
}

fn board(flights: &Numbers, key: u32, now: Instant) -> Option<Caller> {
    match flights.board(key, now) {
        Boarded::Leads(flight, _) => Some(Caller::Leads(flight, None)),
        Boarded::Follows(flight, seat, _) => Some(Caller::Follows(flight, seat)),
        Boarded::Full => None,
    }
}

/// As a leader does that has an answer. Tells how many it was given to.
fn land(flights: &Numbers, flight: Flight, own: Option<Arc<Followers<u32, u32>>>, answer: u32) -> usize {
    let landed = flights.land(flight, 0);
    let Some(followers) = own.or(landed.followers) else { return 0 };
    let waiting = followers.waiting();
    followers.answer(vec![answer; waiting]);
    waiting
}

/// As a leader does that gives up where there is no runtime.
fn abandon(flights: &Numbers, flight: Flight, own: Option<&Followers<u32, u32>>) {
    flights.offer(flight, own, Some(0));
}

#[cfg(not(palisade_loom))]
mod alone {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Wake,
    };

    use proptest::{prelude::*, sample::Index};

    use super::*;

    /// As a follower does that gives up.
    fn depart(flights: &Numbers, flight: Flight, seat: &Seat<u32, u32>) {
        let mut departed = seat.followers.depart(seat.slot);
        if let Some(call) = departed.call.take() {
            flights.offer(flight, Some(&seat.followers), Some(call));
        }
        if departed.vacant {
            flights.offer(flight, Some(&seat.followers), None);
        }
        if let Some(task) = departed.task.take() {
            task.wake();
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_burst_of_flights_leaves_a_small_table() {
        let (flights, now) = (Numbers::new(10_000, ALWAYS), Instant::now());
        let burst: Vec<_> = (0..10_000).filter_map(|key| board(&flights, key, now)).collect();
        assert!(burst.len() > 7_000, "{} of 10,000", burst.len());
        assert!(flights.capacity() >= burst.len());
        for caller in burst {
            let Caller::Leads(flight, _) = caller else { panic!("keys differ") };
            land(&flights, flight, None, 0);
        }
        let left = flights.capacity();
        assert!(left < 32 * 128, "room for {left}");
        for key in 0..1_000_000 {
            let Some(Caller::Leads(flight, _)) = board(&flights, key, now) else { panic!("nobody is there") };
            land(&flights, flight, None, 0);
        }
        assert!(flights.capacity() <= left);
    }

    #[test]
    fn no_more_flights_than_the_limit() {
        for most in [1, 2, 63, 64, 100, 1_000, 10_000] {
            let (flights, now) = (Numbers::new(most, ALWAYS), Instant::now());
            let led = (0..100_000).filter(|key| board(&flights, *key, now).is_some()).count();
            assert!(led <= most && led >= most / 2, "{led} of {most}");
            assert_eq!(flights.census().flights, led);
        }
    }

    #[test]
    fn a_task_that_is_late_does_not_get_the_call_of_the_next_one() {
        let followers = Followers::<u32, u32>::default();
        let first = followers.join();
        assert_eq!(followers.hand_over(1), Ok(1));
        assert_eq!(followers.depart(first).call, Some(1));
        let second = followers.join();
        assert!(followers.offer().is_ok());
        followers.lead(second);
        followers.join();
        assert_eq!(followers.hand_over(2), Ok(2));
        assert_eq!(followers.lend(1, None), None);
        assert_eq!(followers.lend(2, None), Some(2));
    }

    #[test]
    fn a_call_that_is_being_polled_goes_on_if_somebody_joins_before_it_is_put_back() {
        let followers = Followers::<u32, u32>::default();
        let first = followers.join();
        assert_eq!(followers.hand_over(1), Ok(1));
        assert_eq!(followers.lend(1, None), Some(1));
        assert_eq!(followers.depart(first).call, None, "it is away");
        followers.join();
        assert_eq!(followers.put_back(1), Ok(()));
        assert_eq!(followers.lend(1, None), Some(1));
        followers.depart(0);
        assert_eq!(followers.put_back(1), Err(1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call(u32),
        Pass(u64),
        Land(Index),
        // The leader goes, with or without a runtime for the call.
        Leave(Index, bool),
        Depart(Index),
        TaskLands(Index),
        TaskEnds(Index),
        // All who have been woken look.
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<Index>;
        prop_oneof![
            6 => (0_u32..3).prop_map(Step::Call),
            1 => (1_u64..40).prop_map(Step::Pass),
            2 => index().prop_map(Step::Land),
            3 => (index(), any::<bool>()).prop_map(|(index, task)| Step::Leave(index, task)),
            3 => index().prop_map(Step::Depart),
            2 => index().prop_map(Step::TaskLands),
            1 => index().prop_map(Step::TaskEnds),
            3 => Just(Step::Look),
        ]
    }

    /// One flight as the model sees it.
    #[derive(Debug)]
    struct Model {
        of: Flight,
        key: u32,
        began: Instant,
        led: Led,
        // Their numbers, in no order.
        followers: Vec<u32>,
    }

    #[derive(Debug, PartialEq)]
    enum Led {
        By(u32),
        ByTask,
        // One of the followers has been asked.
        ByNobody,
    }

    struct Following {
        number: u32,
        flight: usize,
        of: Flight,
        seat: Seat<u32, u32>,
        wakes: Arc<Wakes>,
        looked: usize,
    }

    struct Leading {
        number: u32,
        flight: usize,
        of: Flight,
        own: Option<Arc<Followers<u32, u32>>>,
    }

    struct Task {
        flight: usize,
        of: Flight,
        followers: Arc<Followers<u32, u32>>,
        number: u64,
    }

    struct World {
        flights: Numbers,
        now: Instant,
        model: Vec<Option<Model>>,
        leaders: Vec<Leading>,
        followers: Vec<Following>,
        tasks: Vec<Task>,
        answered: Vec<(u32, u32)>,
        expected: Vec<(u32, u32)>,
    }

    const JOIN: Duration = Duration::from_millis(50);

    impl World {
        fn call(&mut self, number: u32, key: u32) {
            let oldest = self.now - JOIN;
            let joinable = |model: &Option<Model>| {
                model.as_ref().is_some_and(|model| model.key == key && model.began >= oldest)
            };
            match board(&self.flights, key, self.now).expect("there is room") {
                Caller::Leads(of, own) => {
                    assert!(!self.model.iter().any(joinable), "there was one to join");
                    let model =
                        Model { of, key, began: self.now, led: Led::By(number), followers: Vec::new() };
                    self.model.push(Some(model));
                    self.leaders.push(Leading { number, flight: self.model.len() - 1, of, own });
                }
                Caller::Follows(of, seat) => {
                    // There can be several that it could join: one that began anew, and the one that was begun before that.
                    let which = |model: &Option<Model>| model.as_ref().is_some_and(|model| model.of == of);
                    let flight = self.model.iter().position(which).expect("it is under way");
                    assert!(joinable(&self.model[flight]));
                    self.of(flight).followers.push(number);
                    let wakes = Arc::new(Wakes::default());
                    self.followers.push(Following { number, flight, of, seat, wakes, looked: 0 });
                    self.look_at(self.followers.len() - 1);
                }
            }
        }

        fn of(&mut self, flight: usize) -> &mut Model {
            self.model[flight].as_mut().expect("it is under way")
        }

        /// Polls a follower, and sees to what comes of it.
        fn look_at(&mut self, index: usize) -> bool {
            let follower = &mut self.followers[index];
            follower.looked = follower.wakes.0.load(SeqCst);
            let waker = Waker::from(Arc::clone(&follower.wakes));
            match follower.seat.followers.poll(follower.seat.slot, &waker) {
                Poll::Pending => false,
                Poll::Ready(Given::Answer(answer)) => {
                    self.answered.push((follower.number, answer));
                    self.followers.swap_remove(index);
                    true
                }
                Poll::Ready(Given::Lead) => {
                    let Following { number, flight, of, seat, .. } = self.followers.swap_remove(index);
                    self.flights.lead(of, &seat, self.now);
                    let now = self.now;
                    let model = self.of(flight);
                    assert_eq!(model.led, Led::ByNobody, "it has a leader");
                    (model.led, model.began) = (Led::By(number), now);
                    model.followers.retain(|other| *other != number);
                    self.leaders.push(Leading { number, flight, of, own: Some(seat.followers) });
                    true
                }
            }
        }

        fn answer(&mut self, flight: usize, answer: u32) {
            let model = self.model[flight].take().expect("it is under way");
            self.expected.extend(model.followers.iter().map(|follower| (*follower, answer)));
        }

        /// The flight has no leader: it is over, or the next one is asked.
        fn vacate(&mut self, flight: usize) {
            let model = self.of(flight);
            if model.followers.is_empty() {
                self.model[flight] = None;
            } else {
                model.led = Led::ByNobody;
            }
        }

        fn take(&mut self, step: &Step, number: u32) {
            match step {
                Step::Call(key) => self.call(number, *key),
                Step::Pass(millis) => self.now = self.now + Duration::from_millis(*millis),
                Step::Land(index) if !self.leaders.is_empty() => {
                    let leader = self.leaders.swap_remove(index.index(self.leaders.len()));
                    let given = land(&self.flights, leader.of, leader.own, leader.number);
                    assert_eq!(given, self.of(leader.flight).followers.len());
                    self.answer(leader.flight, leader.number);
                }
                Step::Leave(index, task) if !self.leaders.is_empty() => {
                    let leader = self.leaders.swap_remove(index.index(self.leaders.len()));
                    let own = leader.own.or_else(|| self.flights.followed(leader.of));
                    if *task
                        && let Some(followers) = &own
                        && let Ok(task) = followers.hand_over(leader.number)
                    {
                        self.of(leader.flight).led = Led::ByTask;
                        let followers = Arc::clone(followers);
                        self.tasks.push(Task {
                            flight: leader.flight,
                            of: leader.of,
                            followers,
                            number: task,
                        });
                        return;
                    }
                    abandon(&self.flights, leader.of, own.as_deref());
                    self.vacate(leader.flight);
                }
                Step::Depart(index) if !self.followers.is_empty() => {
                    let follower = self.followers.swap_remove(index.index(self.followers.len()));
                    depart(&self.flights, follower.of, &follower.seat);
                    if self.expected.iter().any(|(number, _)| *number == follower.number) {
                        self.expected.retain(|(number, _)| *number != follower.number);
                        return;
                    }
                    let model = self.of(follower.flight);
                    model.followers.retain(|other| *other != follower.number);
                    if model.followers.is_empty() && !matches!(model.led, Led::By(_)) {
                        self.model[follower.flight] = None;
                    }
                }
                Step::TaskLands(index) if !self.tasks.is_empty() => {
                    let task = self.tasks.swap_remove(index.index(self.tasks.len()));
                    let lent = task.followers.lend(task.number, None);
                    assert_eq!(lent.is_some(), self.model[task.flight].is_some());
                    if lent.is_some() {
                        land(&self.flights, task.of, Some(task.followers), number);
                        self.answer(task.flight, number);
                    }
                }
                // Its runtime was shut down.
                Step::TaskEnds(index) if !self.tasks.is_empty() => {
                    let task = self.tasks.swap_remove(index.index(self.tasks.len()));
                    if task.followers.lend(task.number, None).is_some() {
                        abandon(&self.flights, task.of, Some(&task.followers));
                        self.vacate(task.flight);
                    }
                }
                Step::Look => self.look(),
                _ => {}
            }
        }

        fn look(&mut self) {
            let woken = |follower: &Following| follower.wakes.0.load(SeqCst) > follower.looked;
            while let Some(index) = self.followers.iter().position(woken) {
                assert!(self.look_at(index), "woken for nothing");
            }
        }

        fn check(&self) {
            let census = self.flights.census();
            let under_way: Vec<_> = self.model.iter().flatten().collect();
            assert_eq!(census.flights, under_way.len());
            assert_eq!(census.followers, under_way.iter().map(|model| model.followers.len()).sum::<usize>());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn leaders_and_followers_are_those_of_a_plain_model(
            steps in proptest::collection::vec(step(), 1..60)
        ) {
            let mut world = World {
                flights: Numbers::new(63, JOIN),
                now: Instant::now(),
                model: Vec::new(),
                leaders: Vec::new(),
                followers: Vec::new(),
                tasks: Vec::new(),
                answered: Vec::new(),
                expected: Vec::new(),
            };
            for (number, step) in (100..).zip(&steps) {
                world.take(step, number);
                world.check();
            }
            // Everybody gets what is due: tasks end, leaders have answers, and who is asked to lead does.
            for _ in 0..steps.len() {
                world.take(&Step::TaskLands(any_index()), 1);
                world.look();
                world.take(&Step::Land(any_index()), 2);
            }
            world.look();
            world.check();
            prop_assert!(world.model.iter().all(Option::is_none), "some flights never end");
            prop_assert!(world.followers.is_empty(), "{} hang", world.followers.len());
            world.answered.sort_unstable();
            world.expected.sort_unstable();
            prop_assert_eq!(world.answered, world.expected);
        }
    }

    fn any_index() -> Index {
        use proptest::{strategy::ValueTree, test_runner::TestRunner};
        any::<Index>().new_tree(&mut TestRunner::deterministic()).expect("an index").current()
    }
}

#[cfg(palisade_loom)]
mod models {
    use std::{
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
        task::Context,
    };

    use loom::{future::block_on, thread};

    use super::*;

    struct Model {
        flights: Numbers,
        now: Instant,
        // Of one key: a plain atomic, which is no part of what is modelled.
        calls: AtomicU32,
    }

    /// What a leader does with its call.
    #[derive(Clone, Copy, PartialEq)]
    enum Plan {
        Land,
        Leave,
        Detach,
    }

    impl Model {
        fn check(threads: &'static [Plan], followers: usize) {
            let mut bounds = loom::model::Builder::new();
            bounds.preemption_bound = Some(if threads.len() + followers > 2 { 2 } else { 4 });
            bounds.check(move || {
                let model = Arc::new(Self {
                    flights: Numbers::new(1, ALWAYS),
                    now: Instant::now(),
                    calls: AtomicU32::new(0),
                });
                // It leads, whoever comes when.
                let Some(Caller::Leads(flight, _)) = board(&model.flights, 7, model.now) else {
                    panic!("nobody is there");
                };
                model.begin();
                let others: Vec<_> = (0..followers)
                    .map(|_| {
                        let model = Arc::clone(&model);
                        thread::spawn(move || model.follow())
                    })
                    .collect();
                for plan in threads {
                    model.lead(flight, None, *plan);
                }
                for other in others {
                    other.join().unwrap();
                }
                let census = model.flights.census();
                assert_eq!((census.flights, census.followers, model.calls.load(SeqCst)), (0, 0, 0));
            });
        }

        fn begin(&self) {
            assert_eq!(self.calls.fetch_add(1, SeqCst), 0, "two calls of one key");
        }

        fn end(&self) {
            self.calls.fetch_sub(1, SeqCst);
        }

        fn lead(&self, flight: Flight, own: Option<Arc<Followers<u32, u32>>>, plan: Plan) {
            if plan == Plan::Land {
                self.end();
                land(&self.flights, flight, own, 42);
                return;
            }
            let own = own.or_else(|| self.flights.followed(flight));
            if plan == Plan::Detach
                && let Some(followers) = &own
                && let Ok(task) = followers.hand_over(5)
            {
                // The task is polled once without an answer, and then has it.
                if followers.lend(task, None).is_none() {
                    return;
                }
                if followers.put_back(5).is_err() {
                    self.end();
                    return abandon(&self.flights, flight, Some(followers));
                }
                if followers.lend(task, None).is_some() {
                    self.end();
                    land(&self.flights, flight, Some(Arc::clone(followers)), 42);
                }
                return;
            }
            self.end();
            abandon(&self.flights, flight, own.as_deref());
        }

        /// Calls, and gets an answer in one way or another.
        fn follow(&self) {
            let (flight, seat) = match board(&self.flights, 7, self.now) {
                Some(Caller::Follows(flight, seat)) => (flight, seat),
                Some(Caller::Leads(flight, own)) => {
                    self.begin();
                    return self.lead(flight, own, Plan::Land);
                }
                None => return,
            };
            let given = block_on(poll_fn(|cx| seat.followers.poll(seat.slot, cx.waker())));
            match given {
                Given::Answer(answer) => assert_eq!(answer, 42),
                Given::Lead => {
                    self.flights.lead(flight, &seat, self.now);
                    self.begin();
                    self.lead(flight, Some(seat.followers), Plan::Land);
                }
            }
        }

        /// Calls, looks once, and gives up.
        fn give_up(&self) {
            match board(&self.flights, 7, self.now) {
                Some(Caller::Follows(flight, seat)) => {
                    let polled = pin!(poll_fn(|cx| seat.followers.poll(seat.slot, cx.waker())))
                        .poll(&mut Context::from_waker(Waker::noop()));
                    match polled {
                        Poll::Ready(Given::Answer(_)) => {}
                        _ => self.depart(flight, &seat),
                    }
                }
                Some(Caller::Leads(flight, own)) => {
                    self.begin();
                    self.lead(flight, own, Plan::Leave);
                }
                None => {}
            }
        }

        /// As a follower does that gives up.
        fn depart(&self, flight: Flight, seat: &Seat<u32, u32>) {
            let mut departed = seat.followers.depart(seat.slot);
            if let Some(call) = departed.call.take() {
                self.end();
                self.flights.offer(flight, Some(&seat.followers), Some(call));
            }
            if departed.vacant {
                self.flights.offer(flight, Some(&seat.followers), None);
            }
        }
    }

    #[test]
    fn loom_whoever_joins_before_the_answer_gets_it() {
        Model::check(&[Plan::Land], 2);
    }

    #[test]
    fn loom_whoever_joins_a_leader_that_goes_leads_or_follows() {
        Model::check(&[Plan::Leave], 2);
    }

    #[test]
    fn loom_whoever_joins_a_leader_that_detaches_is_answered() {
        Model::check(&[Plan::Detach], 2);
    }

    /// One follows to the end, one gives up at any moment.
    fn with_one_who_gives_up(plan: Plan) {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(2);
        bounds.check(move || {
            let model = Arc::new(Model {
                flights: Numbers::new(1, ALWAYS),
                now: Instant::now(),
                calls: AtomicU32::new(0),
            });
            let Some(Caller::Leads(flight, _)) = board(&model.flights, 7, model.now) else {
                panic!("nobody is there");
            };
            model.begin();
            let stays = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.follow())
            };
            let goes = {
                let model = Arc::clone(&model);
                thread::spawn(move || model.give_up())
            };
            model.lead(flight, None, plan);
            stays.join().unwrap();
            goes.join().unwrap();
            let census = model.flights.census();
            assert_eq!((census.flights, census.followers, model.calls.load(SeqCst)), (0, 0, 0));
        });
    }

    #[test]
    fn loom_who_gives_up_takes_nobodys_answer_along() {
        with_one_who_gives_up(Plan::Land);
    }

    #[test]
    fn loom_who_gives_up_takes_the_lead_from_nobody() {
        with_one_who_gives_up(Plan::Leave);
    }

    #[test]
    fn loom_the_last_who_gives_up_ends_the_task() {
        with_one_who_gives_up(Plan::Detach);
    }
}
