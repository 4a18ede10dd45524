use std::{
    fmt,
    ops::Index,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    layer::check,
    line::LEVELS,
    overload::Rules,
    turn::{PRIORITIES, Shared},
};
use crate::{ConfigError, Priority, clock::Instant};

/// Reads who waits and who was refused, and changes the limits while they are in use. Clones are handles to the same layer.
#[derive(Clone)]
pub struct ShedHandle {
    pub(super) shared: Arc<Shared>,
}

impl ShedHandle {
    /// Who waits now, and what became of the calls so far.
    pub fn snapshot(&self) -> ShedSnapshot {
        let Shared { queue, shed, timed_out, waited, .. } = &*self.shared;
        let (figures, after) = queue.figures(Instant::now());
        self.shared.settle(after);
        ShedSnapshot {
            waiting: ByPriority(figures.waiting),
            overloaded: figures.overloaded.checked_sub(1).and_then(|level| PRIORITIES.get(level).copied()),
            refused_below: PRIORITIES
                .get(figures.refused_below)
                .copied()
                .filter(|_| figures.refused_below > 0),
            target: figures.target,
            admitted_after_wait: waited.load(Relaxed),
            shed: ByPriority(std::array::from_fn(|level| shed[level].load(Relaxed))),
            timed_out: timed_out.load(Relaxed),
        }
    }

    /// Refuses everything less important than `priority` from now on, whatever the load: those who wait as well. `None` leaves it
    /// to the load again.
    pub fn refuse_below(&self, priority: Option<Priority>) {
        let level = priority.map_or(0, |priority| priority as usize);
        let after = self.shared.queue.refuse_below(level, Instant::now());
        tracing::info!(layer = self.shared.name, priority = priority.map(Priority::as_str), "refuses below");
        self.shared.settle(after);
    }

    /// Sets how long a call of an overloaded priority may wait: see [`ShedBuilder::target`](super::ShedBuilder::target). Who waits already is
    /// not affected.
    ///
    /// # Errors
    ///
    /// If it is out of its range; nothing changes then.
    pub fn set_target(&self, target: Duration) -> Result<(), ConfigError> {
        self.change(|rules| rules.target = target)
    }

    /// Sets how long any call may wait: see [`ShedBuilder::max_wait`](super::ShedBuilder::max_wait). Who waits already is not affected.
    ///
    /// # Errors
    ///
    /// If it is out of its range; nothing changes then.
    pub fn set_max_wait(&self, max_wait: Duration) -> Result<(), ConfigError> {
        self.change(|rules| rules.max_wait = max_wait)
    }

    /// Sets how many calls may wait: see [`ShedBuilder::max_waiting`](super::ShedBuilder::max_waiting). Who waits already goes on.
    ///
    /// # Errors
    ///
    /// If it is out of its range; nothing changes then.
    pub fn set_max_waiting(&self, calls: u32) -> Result<(), ConfigError> {
        self.change(|rules| rules.max_waiting = calls)
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) -> Result<(), ConfigError> {
        let (changed, after) = self.shared.queue.change(Instant::now(), |mut rules| {
            change(&mut rules);
            check(&rules).map(|()| rules)
        });
        self.shared.settle(after);
        changed
    }
}

impl fmt::Debug for ShedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShedHandle")
            .field("layer", &self.shared.name)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// Who waits at a moment, and what became of the calls so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShedSnapshot {
    /// Calls that wait.
    pub waiting: ByPriority<u32>,
    /// The highest priority that is overloaded; those below it are too. Calls of it wait for the target at most, and the newest go
    /// first.
    pub overloaded: Option<Priority>,
    /// Calls that are less important than this are refused at once, because of the load or of
    /// [`ShedHandle::refuse_below`].
    pub refused_below: Option<Priority>,
    /// How long calls of an overloaded priority may wait: as set, or longer where the service is slow.
    pub target: Duration,
    /// Calls that had to wait and then reached the service.
    pub admitted_after_wait: u64,
    /// Calls that were refused, at once or after a wait.
    pub shed: ByPriority<u64>,
    /// Calls whose deadline passed while they waited.
    pub timed_out: u64,
}

/// A figure for each priority: `snapshot.shed[Priority::Low]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ByPriority<T>([T; LEVELS]);

impl<T> Index<Priority> for ByPriority<T> {
    type Output = T;

    fn index(&self, priority: Priority) -> &T {
        &self.0[priority as usize]
    }
}

impl<T: Copy + Into<u64>> ByPriority<T> {
    /// All priorities together.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|figure| (*figure).into()).sum()
    }
}

impl<T: fmt::Debug> fmt::Debug for ByPriority<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(PRIORITIES.iter().zip(&self.0)).finish()
    }
}
