use std::{future::poll_fn, sync::Arc, task::Poll};

use loom::{future::block_on, thread};

use super::*;

struct Model {
    queue: Queue,
    now: Instant,
}

impl Model {
    /// Checked with a thread for each of these.
    fn check(max_waiting: u32, threads: &[fn(&Self)]) {
        let threads = threads.to_vec();
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(3);
        bounds.check(move || {
            let second = Duration::from_secs(1);
            let rules =
                Rules { target: second, interval: second, max_wait: second, max_waiting, newest_first: true };
            let model = Arc::new(Self { queue: Queue::new(rules), now: Instant::now() });
            let others: Vec<_> = threads[1..]
                .iter()
                .map(|each| {
                    let (model, each) = (Arc::clone(&model), *each);
                    thread::spawn(move || each(&model))
                })
                .collect();
            threads[0](&model);
            for other in others {
                other.join().unwrap();
            }
            assert!(model.queue.is_empty());
        });
    }

    /// Waits to be the head, and tells whether it was served.
    fn call(&self, level: usize) -> bool {
        let mut place = None;
        let served = block_on(poll_fn(|cx| {
            let view = match place {
                None => {
                    let (joined, after) = self.queue.join(level, self.now, None, cx.waker());
                    after.wake();
                    joined.ok().map(|(joined, view)| {
                        place = Some(joined);
                        view
                    })
                }
                Some(place) => {
                    let (view, after) = self.queue.look(place, self.now, cx.waker());
                    after.wake();
                    view
                }
            };
            match view {
                Some(View { head: false, .. }) => Poll::Pending,
                view => Poll::Ready(view.is_some()),
            }
        }));
        if let Some(place) = place {
            self.queue.leave(place, self.now, served).wake();
        }
        served
    }

    /// Joins, and gives up at once.
    fn give_up(&self, level: usize) {
        let (joined, after) = self.queue.join(level, self.now, None, Waker::noop());
        after.wake();
        if let Ok((place, _)) = joined {
            self.queue.leave(place, self.now, false).wake();
        }
    }
}

#[test]
fn loom_shed_everybody_becomes_the_head_in_turn() {
    Model::check(
        9,
        &[|model| assert!(model.call(1)), |model| assert!(model.call(2)), |model| assert!(model.call(1))],
    );
}

#[test]
fn loom_shed_who_gives_up_hands_the_turn_on() {
    Model::check(
        9,
        &[|model| model.give_up(3), |model| assert!(model.call(2)), |model| assert!(model.call(1))],
    );
}

/// There is room for one: the critical ones are served unless they meet, and who is pushed out hears of it.
#[test]
fn loom_shed_who_is_pushed_out_is_woken() {
    Model::check(
        1,
        &[
            |model| assert!(model.call(3)),
            |model| {
                model.call(1);
            },
            |model| {
                model.call(0);
            },
        ],
    );
}

#[test]
fn loom_shed_an_operator_sends_away_who_waits_and_nobody_is_forgotten() {
    Model::check(
        9,
        &[
            |model| model.queue.refuse_below(2, model.now).wake(),
            |model| {
                model.call(1);
            },
            |model| assert!(model.call(2)),
        ],
    );
}
