//! The token bucket itself: atomics that are told the time.

use super::BudgetSnapshot;
use crate::{
    clock::Instant,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The bucket counts in millionths of a token, so that small ratios add up without rounding.
const TOKEN: u64 = 1_000_000;
const TOKEN_F: f64 = 1_000_000.0;

#[derive(Debug)]
pub(super) struct Tokens {
    deposit: u64,
    reserve_per_second: f64,
    capacity: u64,
    balance: AtomicU64,
    // When the reserve was last paid in, in nanoseconds of the clock.
    reserve_paid: AtomicU64,
    granted: AtomicU64,
    refused: AtomicU64,
}

impl Tokens {
    pub(super) fn new(ratio: f64, reserve_per_second: f64, burst: u32, now: Instant) -> Self {
        let capacity = u64::from(burst) * TOKEN;
        Self {
            deposit: to_units(ratio),
            reserve_per_second,
            capacity,
            balance: AtomicU64::new(capacity),
            reserve_paid: AtomicU64::new(now.as_nanos()),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether the balance has changed.
    pub(super) fn deposit(&self) -> bool {
        // A full bucket, the usual case, is only read: a write would make every thread wait for the others.
        let room = self.deposit > 0 && self.balance.load(Relaxed) < self.capacity;
        if room {
            self.add(self.deposit);
        }
        room
    }

    pub(super) fn take(&self, now: Instant) -> bool {
        self.pay_reserve(now);
        self.balance.fetch_update(Relaxed, Relaxed, |units| units.checked_sub(TOKEN)).is_ok()
    }

    /// For a repeat that is not made after all.
    pub(super) fn give_back(&self) {
        self.add(TOKEN);
    }

    pub(super) fn count(&self, granted: bool) {
        let counter = if granted { &self.granted } else { &self.refused };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn balance(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a balance stays far below 2^52 units")]
        let units = self.balance.load(Relaxed) as f64;
        units / TOKEN_F
    }

    pub(super) fn snapshot(&self) -> BudgetSnapshot {
        BudgetSnapshot {
            balance: self.balance(),
            granted: self.granted.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    fn add(&self, units: u64) {
        let _ = self.balance.fetch_update(Relaxed, Relaxed, |balance| {
            (balance < self.capacity).then(|| (balance + units).min(self.capacity))
        });
    }

    pub(super) fn pay_reserve(&self, now: Instant) {
        let now = now.as_nanos();
        let paid = self.reserve_paid.load(Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a reserve that is paid a nanosecond late harms nobody"
        )]
        let earned = to_units(now.saturating_sub(paid) as f64 * self.reserve_per_second / 1e9);
        // Whoever moves the date pays; whoever comes too late finds it paid.
        if earned > 0 && self.reserve_paid.compare_exchange(paid, now, Relaxed, Relaxed).is_ok() {
            self.add(earned);
        }
    }
}

#[cfg(test)]
impl Tokens {
    fn withdraw(&self, now: Instant) -> bool {
        let granted = self.take(now);
        self.count(granted);
        granted
    }
}

fn to_units(tokens: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "settings are checked to be small and positive, and a cast saturates"
    )]
    let units = (tokens * TOKEN_F).round() as u64;
    units
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn at_total_failure_the_repeats_are_the_ratio_of_the_requests_and_the_burst() {
        let now = Instant::now();
        let tokens = Tokens::new(0.08, 1.0, 50, now);
        let mut repeats = 0;
        for _ in 0..10_000 {
            tokens.deposit();
            // Every attempt fails, and the caller would repeat for ever.
            while tokens.withdraw(now) {
                repeats += 1;
            }
        }
        assert_eq!(repeats, 800 + 49); // the first deposit found the bucket full
    }

    #[test]
    fn a_caller_with_little_traffic_lives_on_the_reserve() {
        let start = Instant::now();
        let tokens = Tokens::new(0.0, 1.0, 2, start);
        assert!(tokens.withdraw(start) && tokens.withdraw(start));
        assert!(!tokens.withdraw(start + Duration::from_millis(999)));
        assert!(tokens.withdraw(start + Duration::from_secs(1)));
        assert!(!tokens.withdraw(start + Duration::from_millis(1_001)));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_grants_nothing() {
        let start = Instant::now();
        let tokens = Tokens::new(0.0, 1_000.0, 1, start);
        assert!(tokens.withdraw(start));
        assert!(!tokens.withdraw(start));
        assert!(!tokens.withdraw(start - Duration::from_secs(60)));
    }

    #[test]
    fn threads_together_never_take_more_than_was_paid_in() {
        let now = Instant::now();
        let tokens = Tokens::new(0.5, 0.0, 10, now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        tokens.deposit();
                        tokens.withdraw(now);
                    }
                });
            }
        });
        let snapshot = tokens.snapshot();
        assert_eq!(snapshot.granted + snapshot.refused, 80_000);
        assert!(snapshot.granted <= 40_000 + 10, "{snapshot:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deposit,
        Withdraw,
        Wait(u64),
    }

    proptest! {
        /// The bucket beside a plain model that works in exact millionths.
        #[test]
        fn the_bucket_agrees_with_a_plain_model(
            ratio in 0..200u64,
            burst in 1..20u32,
            steps in prop::collection::vec(
                prop_oneof![
                    Just(Step::Deposit), Just(Step::Withdraw), (0..5_000u64).prop_map(Step::Wait)
                ],
                0..400,
            ),
        ) {
            let start = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "at most 200")]
            let tokens = Tokens::new(ratio as f64 / 100.0, 1.0, burst, start);
            let capacity = u64::from(burst) * TOKEN;
            let (mut balance, mut millis, mut paid) = (capacity, 0, 0);
            for step in steps {
                match step {
                    Step::Wait(wait) => millis += wait,
                    Step::Deposit => {
                        tokens.deposit();
                        balance = (balance + ratio * TOKEN / 100).min(capacity);
                    }
                    Step::Withdraw => {
                        let granted = tokens.withdraw(start + Duration::from_millis(millis));
                        balance = (balance + (millis - paid) * 1_000).min(capacity);
                        paid = millis;
                        prop_assert_eq!(granted, balance >= TOKEN);
                        if granted {
                            balance -= TOKEN;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod loom_models {
    use std::time::Duration;

    use loom::{sync::Arc, thread};

    use super::*;

    /// Two threads do the same work, in every order, on a bucket whose burst has been spent.
    fn race(ratio: f64, reserve: f64, work: fn(&Tokens, Instant), check: fn(BudgetSnapshot)) {
        let now = Instant::now();
        loom::model(move || {
            let tokens = Arc::new(Tokens::new(ratio, reserve, 1, now));
            assert!(tokens.withdraw(now));
            let other = Arc::clone(&tokens);
            let thread = thread::spawn(move || work(&other, now));
            work(&tokens, now);
            thread.join().unwrap();
            check(tokens.snapshot());
        });
    }

    #[test]
    fn loom_two_repeats_never_share_a_token() {
        let work = |tokens: &Tokens, now| {
            tokens.deposit();
            tokens.withdraw(now);
        };
        race(0.5, 0.0, work, |end| {
            assert!(end.granted <= 2, "one token was paid in: {end:?}");
            assert_eq!(end.granted + end.refused, 3);
            let paid_in = 2.0 - end.granted as f64;
            assert!((end.balance - paid_in).abs() < 1e-9, "{end:?}");
        });
    }

    #[test]
    fn loom_the_reserve_of_a_second_is_paid_once() {
        let work = |tokens: &Tokens, now: Instant| {
            tokens.withdraw(now + Duration::from_secs(1));
        };
        race(0.0, 1.0, work, |end| {
            assert!(end.granted <= 2, "{end:?}");
            assert!((end.balance + end.granted as f64 - 2.0).abs() < 1e-9, "{end:?}");
        });
    }
}
