#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Wake,
};

use proptest::prelude::*;

use super::*;

const BACKGROUND: usize = 0;
const LOW: usize = 1;
const NORMAL: usize = 2;
const CRITICAL: usize = 3;

const RULES: Rules =
    Rules { target: ms(10), interval: ms(100), max_wait: ms(1_000), max_waiting: 8, newest_first: true };

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// The queue, by a clock of its own.
struct Bench {
    queue: Queue,
    began: Instant,
    now: Instant,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let began = Instant::now();
        Self { queue: Queue::new(rules), began, now: began }
    }

    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = self.began + ms(millis);
        self
    }

    fn try_join(&self, level: usize) -> Result<(Place, View), Refused> {
        let (joined, after) = self.queue.join(level, self.now, None, Waker::noop());
        after.wake();
        joined
    }

    fn join(&self, level: usize) -> Place {
        self.try_join(level).unwrap().0
    }

    fn look(&self, place: Place) -> Option<View> {
        let (view, after) = self.queue.look(place, self.now, Waker::noop());
        after.wake();
        view
    }

    fn is_head(&self, place: Place) -> bool {
        self.look(place).is_some_and(|view| view.head)
    }

    fn leave(&self, place: Place, served: bool) {
        self.queue.leave(place, self.now, served).wake();
    }

    /// Serves whoever is the head of these.
    fn serve(&self, places: &[Place]) -> usize {
        let index = places.iter().position(|place| self.is_head(*place)).expect("somebody is the head");
        self.leave(places[index], true);
        index
    }

    fn figures(&self) -> Figures {
        let (figures, after) = self.queue.figures(self.now);
        after.wake();
        figures
    }

    fn overloaded(&self) -> usize {
        self.figures().overloaded
    }

    /// Somebody of this level who waits on, and comes to an overload.
    fn overload(&mut self, level: usize) -> Place {
        let place = self.join(level);
        let _ = self.at(110).try_join(BACKGROUND);
        assert_eq!(self.overloaded(), level + 1);
        place
    }
}

#[test]
fn the_most_important_go_first_and_of_them_those_who_came_first() {
    let bench = Bench::new(RULES);
    let places = [CRITICAL, LOW, CRITICAL, BACKGROUND, NORMAL, LOW, CRITICAL].map(|level| bench.join(level));
    let order: Vec<_> = places.iter().map(|_| bench.serve(&places)).collect();
    assert_eq!(order, [0, 2, 6, 4, 1, 5, 3]);
    assert!(bench.queue.is_idle());
}

#[test]
fn who_is_the_head_stays_it_whoever_comes() {
    let bench = Bench::new(RULES);
    let (low, critical) = (bench.join(LOW), bench.join(CRITICAL));
    assert!(bench.is_head(low) && !bench.is_head(critical));
}

#[test]
fn a_level_is_overloaded_when_somebody_was_late_for_an_interval() {
    let mut bench = Bench::new(RULES);
    let place = bench.join(NORMAL);
    let view = bench.try_join(LOW).unwrap().1;
    assert_eq!(view.give_up, bench.now + ms(1_000));
    bench.at(109).join(LOW);
    assert_eq!(bench.overloaded(), 0);
    // Late since 10 ms.
    let view = bench.at(110).try_join(NORMAL).unwrap().1;
    assert_eq!((bench.overloaded(), view.give_up), (3, bench.now + ms(10)));
    assert_eq!(bench.try_join(LOW), Err(Refused::Shed));
    assert_eq!(bench.try_join(BACKGROUND), Err(Refused::Shed));
    let view = bench.try_join(CRITICAL).unwrap().1;
    assert_eq!(view.give_up, bench.now + ms(1_000), "nothing changes for what is more important");
    assert!(bench.is_head(place));
}

#[test]
fn a_line_that_was_short_once_in_the_interval_is_no_overload() {
    let mut bench = Bench::new(RULES);
    let mut last = bench.join(NORMAL);
    // Somebody waits all the time, and for more than the target most of it.
    for millis in (0..1_000).step_by(25) {
        let next = bench.at(millis + 24).join(NORMAL);
        bench.leave(last, true);
        last = next;
    }
    assert_eq!(bench.overloaded(), 0);
}

#[test]
fn an_overload_is_over_when_nobody_of_the_level_waits() {
    let mut bench = Bench::new(RULES);
    let place = bench.overload(NORMAL);
    bench.leave(place, false);
    assert_eq!((bench.overloaded(), bench.queue.is_idle()), (0, true));
    assert!(bench.try_join(BACKGROUND).is_ok());
}

#[test]
fn the_newest_go_first_where_it_is_overloaded_and_the_oldest_if_told_so() {
    for newest_first in [true, false] {
        let mut bench = Bench::new(Rules { newest_first, ..RULES });
        let head = bench.overload(NORMAL);
        let places = [NORMAL, CRITICAL, NORMAL, CRITICAL].map(|level| bench.join(level));
        bench.leave(head, true);
        let order: Vec<_> = places.iter().map(|_| bench.serve(&places)).collect();
        assert_eq!(order, if newest_first { [1, 3, 2, 0] } else { [1, 3, 0, 2] });
    }
}

#[test]
fn each_newcomer_in_an_overload_sends_two_away_who_have_been_there_too_long() {
    let mut bench = Bench::new(RULES);
    let head = bench.join(NORMAL);
    let [low, first, second, third] = [LOW, NORMAL, NORMAL, NORMAL].map(|level| bench.join(level));
    bench.at(110).join(NORMAL);
    assert!(bench.look(low).is_none() && bench.look(first).is_none(), "the least important first");
    assert!(bench.look(second).is_some() && bench.look(third).is_some());
    bench.join(NORMAL);
    assert!(bench.look(second).is_none() && bench.look(third).is_none());
    bench.join(NORMAL);
    assert!(bench.is_head(head), "not who is to be served next");
    assert_eq!(bench.figures().waiting, [0, 0, 4, 0]);
}

#[test]
fn who_is_alone_may_stay_until_the_longest_wait_is_over() {
    let mut bench = Bench::new(RULES);
    let head = bench.overload(NORMAL);
    let place = bench.join(NORMAL);
    bench.leave(head, false);
    let mut give_up = bench.look(place).unwrap().give_up;
    assert_eq!(give_up, bench.began + ms(120));
    while let (Some(later), _) = bench.queue.expire(place, give_up) {
        assert!(later > give_up);
        give_up = later;
    }
    assert_eq!(give_up, bench.began + ms(1_110));
    assert!(bench.queue.is_idle());
}

#[test]
fn who_is_not_alone_makes_room_when_its_time_has_come() {
    let mut bench = Bench::new(RULES);
    let head = bench.overload(NORMAL);
    let (first, second) = (bench.join(NORMAL), bench.join(NORMAL));
    bench.leave(head, false);
    assert!(bench.is_head(second));
    assert_eq!(bench.queue.expire(second, bench.began + ms(119)).0, Some(bench.began + ms(120)));
    assert_eq!(bench.queue.expire(second, bench.began + ms(120)).0, None);
    assert!(bench.at(120).is_head(first));
}

#[test]
fn a_full_line_takes_in_who_is_more_important_for_who_matters_least() {
    let bench = Bench::new(Rules { max_waiting: 3, ..RULES });
    let (head, old, new) = (bench.join(LOW), bench.join(LOW), bench.join(LOW));
    assert_eq!(bench.try_join(LOW), Err(Refused::Shed));
    assert_eq!(bench.try_join(BACKGROUND), Err(Refused::Shed));
    let critical = bench.join(CRITICAL);
    assert_eq!(bench.look(head), None, "it has waited longest");
    assert!(bench.is_head(critical) && bench.look(old).is_some());
    let normal = bench.join(NORMAL);
    assert_eq!(bench.look(old), None);
    bench.join(CRITICAL);
    assert_eq!(bench.look(new), None);
    bench.join(CRITICAL);
    assert_eq!(bench.look(normal), None);
    assert_eq!(bench.try_join(CRITICAL), Err(Refused::Shed));
    assert_eq!(bench.figures().waiting, [0, 0, 0, 3]);
}

#[test]
fn a_place_that_is_used_again_is_not_that_of_who_was_sent_away() {
    let bench = Bench::new(Rules { max_waiting: 1, ..RULES });
    let low = bench.join(LOW);
    let critical = bench.join(CRITICAL);
    bench.leave(low, false);
    bench.leave(low, true);
    assert!(bench.is_head(critical) && bench.look(low).is_none());
    assert_eq!(lock(&bench.queue.core).lines.places(), 2);
}

#[test]
fn a_head_that_nobody_polls_is_deposed_when_its_time_is_over() {
    let mut bench = Bench::new(RULES);
    let head = bench.join(NORMAL);
    let next = bench.at(50).join(NORMAL);
    // It looks again when the head would have to have gone, and not only when its own time is over.
    let view = bench.look(next).unwrap();
    assert_eq!((view.look_at, view.give_up), (bench.began + ms(1_010), bench.began + ms(1_050)));
    assert!(!bench.at(1_009).is_head(next));
    assert!(bench.at(1_010).is_head(next));
    assert_eq!(bench.look(head), None);
}

#[test]
fn over_a_slow_service_the_target_and_the_interval_are_longer() {
    let mut bench = Bench::new(RULES);
    let mut places: Vec<_> = (0..8).map(|_| bench.join(NORMAL)).collect();
    for served in 1..=7 {
        places.remove(bench.at(served * 100).serve(&places));
    }
    // One each 100 ms: twice that is the target, and the interval would be 2 s.
    assert_eq!(bench.figures().target, ms(200));
    assert_eq!(bench.overloaded(), 0);
    places.remove(bench.at(800).serve(&places));
    let rules = Rules { max_wait: ms(150), ..RULES };
    let (changed, after) = bench.queue.change(bench.now, |_| Ok::<_, ()>(rules));
    changed.unwrap();
    after.wake();
    assert_eq!(bench.figures().target, ms(150));
}

#[test]
fn an_operator_refuses_whatever_the_load_and_takes_it_back() {
    let bench = Bench::new(RULES);
    let (low, normal) = (bench.join(LOW), bench.join(NORMAL));
    bench.queue.refuse_below(NORMAL, bench.now).wake();
    assert!(bench.look(low).is_none() && bench.is_head(normal));
    assert_eq!((bench.try_join(LOW), bench.queue.refused_below()), (Err(Refused::Shed), NORMAL));
    bench.leave(normal, false);
    assert!(!bench.queue.is_idle() && bench.queue.is_empty());
    bench.queue.refuse_below(BACKGROUND, bench.now).wake();
    assert!(bench.queue.is_idle() && bench.try_join(LOW).is_ok());
}

#[test]
fn a_deadline_that_has_passed_takes_no_place() {
    let bench = Bench::new(RULES);
    let joined = bench.queue.join(NORMAL, bench.now, Some(bench.now), Waker::noop()).0;
    assert_eq!(joined, Err(Refused::TooLate));
    assert!(bench.queue.is_idle());
}

#[test]
fn a_clock_that_stands_still_or_goes_back_serves_on() {
    for step in [0_i64, -1_000] {
        let bench = &mut Bench::new(RULES);
        for _ in 0..100 {
            let places: Vec<_> = (0..8).map(|_| bench.join(NORMAL)).collect();
            assert_eq!(bench.try_join(NORMAL), Err(Refused::Shed));
            for _ in &places {
                bench.now = if step < 0 { bench.now - ms(1_000) } else { bench.now };
                bench.serve(&places);
            }
            assert!(bench.queue.is_idle());
        }
        assert_eq!(bench.figures().target, ms(10));
    }
}

#[test]
fn after_a_leap_of_the_clock_a_call_is_served_again() {
    let mut bench = Bench::new(RULES);
    let stale: Vec<_> = (0..4).map(|_| bench.join(NORMAL)).collect();
    bench.at(1_000_000_000).leave(stale[0], true);
    assert!(stale.iter().all(|place| bench.look(*place).is_none()));
    let place = bench.join(NORMAL);
    assert!(bench.is_head(place));
    assert_eq!(bench.overloaded(), 0);
    assert!(bench.figures().target <= ms(1_000));
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, Option<u64>),
    Look(prop::sample::Index),
    Expire(prop::sample::Index),
    Leave(prop::sample::Index, bool),
    Serve,
    Refuse(usize),
    Wait(u64),
    Back(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use prop::sample::Index;
    prop_oneof![
        8 => (0..LEVELS, prop::option::weighted(0.2, 0..300_u64)).prop_map(|(level, until)| Step::Join(level, until)),
        3 => any::<Index>().prop_map(Step::Look),
        3 => any::<Index>().prop_map(Step::Expire),
        1 => any::<(Index, bool)>().prop_map(|(index, served)| Step::Leave(index, served)),
        4 => Just(Step::Serve),
        1 => prop_oneof![4 => Just(0), 1 => 0..LEVELS].prop_map(Step::Refuse),
        6 => prop_oneof![0..10_u64, 0..60_u64, 0..1_200_u64].prop_map(Step::Wait),
        1 => (0..50_u64).prop_map(Step::Back),
    ]
}

/// One who waits in the model, in a row of all.
#[derive(Clone, Debug)]
struct Person {
    id: usize,
    level: usize,
    joined: Instant,
    give_up: Instant,
    latest: Instant,
}

/// The same rules over a plain row that is searched from end to end.
struct Model {
    rules: Rules,
    row: Vec<Person>,
    head: Option<usize>,
    overloaded: usize,
    late_since: [Option<Instant>; LEVELS],
    gap: Option<Duration>,
    last_served: Option<Instant>,
    floor: usize,
    woken: Vec<usize>,
}

impl Model {
    fn target(&self) -> Duration {
        self.rules.target.max((self.gap.unwrap_or_default() * 2).min(self.rules.max_wait))
    }

    fn interval(&self) -> Duration {
        let times = self.target().as_nanos() * self.rules.interval.as_nanos() / self.rules.target.as_nanos();
        Duration::from_nanos(times.try_into().unwrap()).min(self.rules.max_wait)
    }

    fn of(&self, level: usize) -> impl DoubleEndedIterator<Item = &Person> {
        self.row.iter().filter(move |person| person.level == level)
    }

    fn first(&self, level: usize, is_one: impl Fn(&Person) -> bool) -> Option<Person> {
        self.of(level).find(|person| is_one(person)).cloned()
    }

    fn person(&self, id: usize) -> Option<&Person> {
        self.row.iter().find(|person| person.id == id)
    }

    fn refused_below(&self) -> usize {
        self.floor.max(self.overloaded.saturating_sub(1))
    }

    fn update(&mut self, now: Instant) {
        for level in 0..LEVELS {
            let oldest =
                (level..LEVELS).filter_map(|level| self.of(level).next()).map(|person| person.joined).min();
            match oldest {
                None => {
                    self.overloaded = self.overloaded.min(level);
                    self.late_since[level] = None;
                }
                Some(oldest) if oldest + self.target() <= now => {
                    self.late_since[level].get_or_insert(oldest + self.target());
                }
                Some(_) if level < self.overloaded => {}
                Some(_) => self.late_since[level] = None,
            }
        }
        if self.row.is_empty() {
            self.last_served = None;
        }
        let long = |since: &Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= self.interval())
        };
        self.overloaded += self.late_since[self.overloaded..].iter().take_while(|since| long(since)).count();
    }

    fn overdue(&self, person: &Person, now: Instant) -> bool {
        person.give_up + self.rules.target <= now
    }

    fn depose(&mut self, now: Instant) {
        if let Some(head) = self.head
            && self.overdue(self.person(head).unwrap(), now)
        {
            self.remove(head, now, true);
        }
    }

    fn remove(&mut self, id: usize, now: Instant, wake: bool) {
        let before = self.row.len();
        self.row.retain(|person| person.id != id);
        if wake && before > self.row.len() {
            self.woken.push(id);
        }
        if self.head == Some(id) {
            self.head = None;
            self.update(now);
            self.choose(now);
        }
    }

    fn choose(&mut self, now: Instant) {
        while self.head.is_none() {
            let Some(level) = self.row.iter().map(|person| person.level).max() else { return };
            let newest = self.rules.newest_first && level < self.overloaded;
            let next = if newest { self.of(level).last() } else { self.of(level).next() };
            let next = next.unwrap().clone();
            self.woken.push(next.id);
            if self.overdue(&next, now) {
                self.row.retain(|person| person.id != next.id);
            } else {
                self.head = Some(next.id);
            }
        }
    }

    fn join(&mut self, id: usize, level: usize, now: Instant, until: Option<Instant>) -> Result<(), Refused> {
        self.depose(now);
        self.update(now);
        let mut left = 2;
        for stale in 0..self.overloaded {
            let allowed = if stale < self.refused_below() { Duration::ZERO } else { self.target() };
            let head = self.head;
            while left > 0
                && let Some(person) = self.first(stale, |person| Some(person.id) != head)
                && person.joined + allowed <= now
            {
                self.remove(person.id, now, true);
                left -= 1;
            }
        }
        if until.is_some_and(|until| until <= now) {
            return Err(Refused::TooLate);
        }
        if level < self.refused_below() {
            return Err(Refused::Shed);
        }
        let overloaded = level < self.overloaded;
        let mut makes_room = None;
        if self.row.len() >= self.rules.max_waiting as usize {
            let least = self.row.iter().map(|person| person.level).min().filter(|least| *least < level);
            makes_room = match least {
                Some(least) => self.of(least).next(),
                None if overloaded && self.rules.newest_first => {
                    self.of(level).find(|person| Some(person.id) != self.head)
                }
                None => None,
            };
            if makes_room.is_none() {
                return Err(Refused::Shed);
            }
        }
        let makes_room = makes_room.map(|person| person.id);
        if self.row.is_empty() {
            self.last_served = Some(now);
        }
        let latest = (now + self.rules.max_wait).min(until.unwrap_or(now + Duration::MAX));
        let give_up = latest.min(now + if overloaded { self.target() } else { self.rules.max_wait });
        self.row.push(Person { id, level, joined: now, give_up, latest });
        if let Some(out) = makes_room {
            self.remove(out, now, true);
        }
        self.choose(now);
        Ok(())
    }

    fn expire(&mut self, id: usize, now: Instant) {
        let (alone, target) = (self.row.len() == 1, self.target());
        let Some(person) = self.row.iter_mut().find(|person| person.id == id) else { return };
        if alone {
            person.give_up = person.give_up.max(person.latest.min(now + target));
        }
        if person.give_up <= now {
            self.remove(id, now, false);
        }
    }

    fn serve(&mut self, id: usize, now: Instant, served: bool) {
        if served && let Some(last) = self.last_served.replace(now) {
            let gap = now.saturating_duration_since(last).min(self.rules.max_wait);
            self.gap = Some(self.gap.map_or(gap, |mean| (mean * 15 + gap) / 16));
        }
        self.remove(id, now, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The queue beside the model: the same are served, woken and sent away, and somebody is the head whenever somebody waits.
    #[test]
    fn the_queue_agrees_with_a_plain_row(
        steps in prop::collection::vec(step(), 0..400),
        newest_first in any::<bool>(),
    ) {
        let rules = Rules { newest_first, ..RULES };
        let mut bench = Bench::new(rules);
        let mut model = Model {
            rules,
            row: Vec::new(),
            head: None,
            overloaded: 0,
            late_since: [None; LEVELS],
            gap: None,
            last_served: None,
            floor: 0,
            woken: Vec::new(),
        };
        // Everybody who has ever joined, and has not left by itself.
        let mut people: Vec<(usize, Place, Arc<Woken>)> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            let now = bench.now;
            model.woken.clear();
            let mut actor = None;
            let pick = |index: prop::sample::Index| {
                if people.is_empty() { None } else { Some(people[index.index(people.len())].clone()) }
            };
            match step {
                Step::Join(level, until) => {
                    let until = until.map(|until| now + ms(until));
                    let woken = Arc::new(Woken::default());
                    let (joined, after) = bench.queue.join(level, now, until, &Arc::clone(&woken).into());
                    after.wake();
                    prop_assert_eq!(joined.map(|_| ()), model.join(id, level, now, until));
                    if let Ok((place, _)) = joined {
                        people.push((id, place, woken));
                        actor = Some(id);
                    }
                }
                Step::Look(index) => if let Some((id, place, woken)) = pick(index) {
                    woken.0.store(false, SeqCst);
                    let (view, after) = bench.queue.look(place, now, &woken.into());
                    after.wake();
                    if model.person(id).is_some() && model.head != Some(id) {
                        model.depose(now);
                    }
                    prop_assert_eq!(view.is_some(), model.person(id).is_some());
                    // It hears of whatever befalls it by what it sees.
                    actor = Some(id);
                    if view.is_none() {
                        people.retain(|(other, ..)| *other != id);
                    }
                },
                Step::Expire(index) => if let Some((id, place, _)) = pick(index) {
                    let (goes_on, after) = bench.queue.expire(place, now);
                    after.wake();
                    model.expire(id, now);
                    prop_assert_eq!(goes_on, model.person(id).map(|person| person.give_up));
                    if goes_on.is_none() {
                        people.retain(|(other, ..)| *other != id);
                    }
                },
                Step::Leave(index, served) => if let Some((id, place, _)) = pick(index) {
                    bench.leave(place, served);
                    model.serve(id, now, served);
                    people.retain(|(other, ..)| *other != id);
                },
                Step::Serve => if let Some(head) = model.head {
                    let (_, place, _) = *people.iter().find(|(id, ..)| *id == head).unwrap();
                    bench.leave(place, true);
                    model.serve(head, now, true);
                    people.retain(|(other, ..)| *other != head);
                },
                Step::Refuse(level) => {
                    bench.queue.refuse_below(level, now).wake();
                    model.floor = level;
                    for below in 0..level {
                        while let Some(person) = model.first(below, |_| true) {
                            model.remove(person.id, now, true);
                        }
                    }
                }
                Step::Wait(millis) => bench.now = now + ms(millis),
                Step::Back(millis) => bench.now = now - ms(millis),
            }
            // Whoever looks sees what is so now.
            model.update(bench.now);
            let figures = bench.figures();
            let waiting: [u32; LEVELS] = std::array::from_fn(|level| model.of(level).count().try_into().unwrap());
            prop_assert_eq!(figures.waiting, waiting);
            prop_assert_eq!(figures.target, model.target());
            prop_assert_eq!(figures.overloaded, model.overloaded);
            prop_assert_eq!(bench.queue.refused_below(), model.refused_below());
            prop_assert_eq!(bench.queue.is_empty(), model.row.is_empty());
            prop_assert!(model.row.len() <= rules.max_waiting as usize);
            prop_assert_eq!(model.head.is_some(), !model.row.is_empty());
            let core = lock(&bench.queue.core);
            prop_assert!(core.lines.places() <= rules.max_waiting as usize + 1);
            for (id, place, woken) in &people {
                let view = core.view(*place);
                prop_assert_eq!(view.map(|view| view.give_up), model.person(*id).map(|person| person.give_up));
                prop_assert_eq!(view.is_some_and(|view| view.head), model.head == Some(*id));
                let is_woken = woken.0.load(SeqCst);
                if model.woken.contains(id) && actor != Some(*id) {
                    prop_assert!(is_woken, "nobody told {}", id);
                }
                // Who was woken is the head, has been it, or was sent away.
                prop_assert!(!is_woken || view.is_none_or(|view| view.head));
            }
        }
    }
}
