//! How fast a server works over time.

/// Nanoseconds since a simulation began.
pub type Nanos = u64;

/// The nanoseconds in so many seconds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulations last minutes, and begin at zero"
)]
pub fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

/// The seconds in so many nanoseconds.
#[allow(clippy::cast_precision_loss, reason = "simulations last minutes")]
pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// The speed of a server's workers: 1 is normal, 0.5 takes twice as long, 0 stands still.
#[derive(Clone, Debug)]
pub struct Speed {
    // From when on, in ascending order, and how fast.
    changes: Vec<(Nanos, f64)>,
}

impl Default for Speed {
    fn default() -> Self {
        Self { changes: vec![(0, 1.0)] }
    }
}

impl Speed {
    /// Changes the speed at a time, in seconds, after all changes before.
    #[must_use]
    pub fn then(mut self, from: f64, speed: f64) -> Self {
        self.changes.push((nanos(from), speed));
        self
    }

    /// When work is done that begins at `start` and takes `work` at normal speed. Never, if the server stands still for good.
    pub fn done(&self, start: Nanos, work: Nanos) -> Nanos {
        let mut left = seconds(work);
        for (index, (from, speed)) in self.changes.iter().enumerate() {
            let end = self.changes.get(index + 1).map_or(Nanos::MAX, |next| next.0);
            if end <= start {
                continue;
            }
            let from = start.max(*from);
            let possible = seconds(end - from) * speed;
            if left <= possible && *speed > 0.0 {
                return from + nanos(left / speed);
            }
            left -= possible;
        }
        Nanos::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_stretched_where_the_server_is_slow_and_waits_while_it_stands_still() {
        let speed = Speed::default().then(10.0, 0.5).then(20.0, 0.0).then(22.0, 1.0);
        let done = |start, work| seconds(speed.done(nanos(start), nanos(work)));
        assert!((done(1.0, 2.0) - 3.0).abs() < 1e-6);
        assert!((done(9.0, 2.0) - 12.0).abs() < 1e-6);
        assert!((done(19.0, 1.0) - 22.5).abs() < 1e-6);
        assert!((done(21.0, 1.0) - 23.0).abs() < 1e-6);
        assert_eq!(Speed::default().then(1.0, 0.0).done(nanos(2.0), 1), Nanos::MAX);
    }
}
