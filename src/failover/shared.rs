//! What all services, futures and handles of one layer share.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::{Budget, Class, Fault, Idempotence, Instant, Rejection};
use scylla::statement::Consistency;
use tokio::{sync::watch, time};

use super::{
    SwitchCause,
    datacenters::{Datacenter, Source},
    eligible::{Stays, level_at},
    figures::Figures,
    state::{LOCAL, State, Switch},
};
use crate::{
    error::{Error, ErrorKind},
    request::Request,
};

/// More datacenters than this have no room in a [`Route`].
pub(super) const MOST: usize = 16;

pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) datacenters: Box<[Datacenter]>,
    pub(super) source: Box<dyn Source>,
    pub(super) allow_serial: bool,
    /// Whether the local datacenter has to be named to the session, which has no one of its own.
    pub(super) names_local: bool,
    pub(super) budget: Option<Budget>,
    pub(super) figures: Figures,
    state: Mutex<State>,
    route: AtomicU64,
}

/// Where traffic goes, in one word: the active datacenter, the share that the local one gets back, and of each datacenter whether it
/// takes what failed elsewhere, and whether a success there is news.
#[derive(Clone, Copy)]
struct Route(u64);

impl Route {
    fn of(state: &State, datacenters: usize, now: Instant) -> Self {
        let bits = |of: &dyn Fn(usize) -> bool| {
            (0..datacenters).fold(0_u64, |bits, index| bits | (u64::from(of(index)) << index))
        };
        Self(
            state.active() as u64
                | (u64::from(state.trickle(now)) << 16)
                | (bits(&|index| state.is_refuge(index, now)) << 32)
                | (bits(&|index| state.is_troubled(index)) << 48),
        )
    }

    /// The local datacenter is active, and so gets everything.
    const fn is_local(self) -> bool {
        self.0 & 0xffff == LOCAL as u64
    }

    const fn active(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    const fn trickle(self) -> u32 {
        (self.0 >> 16) as u32 & 0xffff
    }

    const fn is_refuge(self, datacenter: usize) -> bool {
        (self.0 >> (32 + datacenter)) & 1 == 1
    }

    const fn is_troubled(self, datacenter: usize) -> bool {
        (self.0 >> (48 + datacenter)) & 1 == 1
    }
}

/// Where a request goes, and at which level if not at its own.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) datacenter: usize,
    level: Option<Consistency>,
}

const HERE: Choice = Choice { datacenter: LOCAL, level: None };

/// What is to become of a request that failed in a datacenter.
pub(super) enum Verdict {
    /// It is sent to another.
    Goes(Choice, Request),
    /// It is not, and this is why, where it is worth to say.
    Stays(Option<String>),
}

impl Shared {
    pub(super) fn new(
        name: &'static str,
        datacenters: Vec<Datacenter>,
        source: Box<dyn Source>,
        state: State,
        allow_serial: bool,
        names_local: bool,
        budget: Option<Budget>,
    ) -> Self {
        let figures = Figures::new(name, datacenters.iter().map(|datacenter| Arc::clone(&datacenter.name)));
        let route = Route::of(&state, datacenters.len(), Instant::now());
        Self {
            name,
            datacenters: datacenters.into(),
            source,
            allow_serial,
            names_local,
            budget,
            figures,
            state: Mutex::new(state),
            route: AtomicU64::new(route.0),
        }
    }

    /// Where this request goes.
    #[inline]
    pub(super) fn choose(&self, request: &Request) -> Choice {
        let route = self.route();
        if route.is_local() { HERE } else { self.choose_away(route, request) }
    }

    #[cold]
    fn choose_away(&self, route: Route, request: &Request) -> Choice {
        // Whether the local datacenter is back is tried with what can be sent once more if it is not.
        let is_trial = route.trickle() > 0
            && request.idempotence() == Idempotence::Yes
            && fastrand::u32(..1_000) < route.trickle();
        if is_trial {
            return HERE;
        }
        // What the active one has no part of may be served by another, of which the local one comes first.
        let others = || (0..self.datacenters.len()).filter(|other| route.is_refuge(*other));
        std::iter::once(route.active())
            .chain(others())
            .find_map(|datacenter| {
                Some(Choice { datacenter, level: self.level_at(request, datacenter).ok()? })
            })
            .unwrap_or(HERE)
    }

    /// The request as the datacenter is to serve it.
    #[inline]
    pub(super) fn addressed(&self, request: Request, to: Choice) -> Request {
        if to.datacenter == LOCAL && !self.names_local {
            return request;
        }
        let request = match to.level {
            Some(level) => request.with_consistency(level),
            None => request,
        };
        request.with_datacenter(Arc::clone(&self.datacenters[to.datacenter].name))
    }

    fn level_at(&self, request: &Request, datacenter: usize) -> Result<Option<Consistency>, Stays> {
        level_at(request, &self.datacenters[datacenter], &*self.source, self.allow_serial)
    }

    /// A call was answered by this datacenter.
    #[inline]
    pub(super) fn succeeded(&self, datacenter: usize) {
        if self.route().is_troubled(datacenter) {
            self.update(|state, _| {
                state.succeeded(datacenter);
                None
            });
        }
    }

    /// A call failed there, or its caller has waited for it until the deadline.
    #[cold]
    pub(super) fn failed(&self, request: &Request, datacenter: usize) {
        // What no other datacenter could serve is no reason to leave this one.
        let is_served_elsewhere = datacenter != LOCAL
            || (LOCAL + 1..self.datacenters.len()).any(|other| self.level_at(request, other).is_ok());
        if is_served_elsewhere {
            self.update(|state, now| state.failed(datacenter, now));
        }
    }

    /// What is to become of a request that failed.
    #[cold]
    pub(super) fn after_failure(&self, request: &Request, datacenter: usize, error: &Error) -> Verdict {
        use palisade::{Classified, HasDeadline, Repeat, Why};

        let route = self.route();
        let refuges = || (0..self.datacenters.len()).filter(|to| *to != datacenter && route.is_refuge(*to));
        let able = refuges().find_map(|to| Some((to, self.level_at(request, to).ok()?)));
        let Some((to, level)) = able else {
            let why = |to: usize| Some(self.level_at(request, to).err()?.because(&self.datacenters[to].name));
            return Verdict::Stays(refuges().next().and_then(why));
        };
        let name = &self.datacenters[to].name;
        let Some(repeat) = request.repeat(Why::Retry(error.class())) else {
            let note = format!(
                "not sent to datacenter {name}: it may have been applied, and is not known to be idempotent; find out, or \
                 say that it is"
            );
            return Verdict::Stays(Some(note));
        };
        if request.deadline().is_some_and(|deadline| deadline.remaining().is_zero()) {
            return Verdict::Stays(Some(format!("no time was left for datacenter {name}: allow for more")));
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Verdict::Stays(Some(format!(
                "not sent to datacenter {name}: the budget for repeats is exhausted"
            )));
        }
        self.figures.repeated(datacenter, to);
        Verdict::Goes(Choice { datacenter: to, level }, repeat.uncounted())
    }

    /// Looks at the cluster, and decides anew.
    pub(super) fn look(&self) {
        let can_serve = self.source.can_serve(self.active());
        self.update(|state, now| state.look(&can_serve, now));
        self.figures.show(self.route().active());
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut State, Instant) -> Option<Switch>) {
        let mut state = self.state();
        let now = Instant::now();
        let switch = change(&mut state, now);
        let route = Route::of(&state, self.datacenters.len(), now);
        self.route.store(route.0, Relaxed);
        drop(state);
        if let Some(switch) = switch {
            self.announce(switch);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> usize {
        self.route().active()
    }

    fn announce(&self, Switch { from, to, cause }: Switch) {
        let name = |index: usize| &*self.datacenters[index].name;
        let (layer, from_name, to_name, why) = (self.name, name(from), name(to), cause.as_str());
        match cause {
            SwitchCause::Recovered => {
                tracing::info!(
                    layer,
                    from = from_name,
                    to = to_name,
                    why,
                    "the local datacenter serves again"
                );
            }
            SwitchCause::Operator => {
                tracing::info!(layer, from = from_name, to = to_name, why, "another datacenter serves");
            }
            SwitchCause::CannotServe | SwitchCause::Failures => {
                tracing::warn!(layer, from = from_name, to = to_name, why, "another datacenter serves");
            }
        }
        self.figures.switched(from, to);
    }

    #[inline]
    fn route(&self) -> Route {
        Route(self.route.load(Relaxed))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("name", &self.name)
            .field("datacenters", &self.datacenters)
            .field("active", &self.datacenters[self.active()].name)
            .finish_non_exhaustive()
    }
}

/// What an error tells of the datacenter that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// Another one may do better.
    Trouble,
    /// So may it here, but nobody was asked there.
    Refused,
    /// It is alive.
    Answer,
    Nothing,
}

impl Tells {
    pub(super) fn of(error: &Error, class: &Class) -> Self {
        match class.fault() {
            // A breaker further in, which may have a circuit for each datacenter.
            _ if matches!(error.rejection(), Some(Rejection::CircuitOpen { .. })) => Self::Refused,
            // A health layer further in, which knows that nothing of the keyspace can be served there.
            _ if class.is_refused_here() && error.kind() == ErrorKind::Unavailable => Self::Trouble,
            // So many attempts are overdue at each node there that no more can be made.
            _ if class.is_refused_here() && error.kind() == ErrorKind::ConnectionFull => Self::Trouble,
            _ if class.is_refused_here() => Self::Nothing,
            Fault::Unreachable => Self::Trouble,
            Fault::Server if class.may_do_elsewhere() => Self::Trouble,
            // Too much is under way on a connection, or too many answers were overdue on one that was torn down: that is no answer.
            Fault::Overload if matches!(error.kind(), ErrorKind::ConnectionFull | ErrorKind::Unreachable) => {
                Self::Nothing
            }
            Fault::Server | Fault::Overload => Self::Answer,
            _ => Self::Nothing,
        }
    }
}

/// Looks at the cluster now and then, and when a node changes, until the layer is gone.
pub(super) async fn watch(shared: Weak<Shared>, every: Duration, mut changes: watch::Receiver<u64>) {
    loop {
        if let Ok(Err(_)) = time::timeout(every, changes.changed()).await {
            time::sleep(every).await;
        }
        let Some(shared) = shared.upgrade() else { return };
        shared.look();
    }
}

#[cfg(test)]
mod tests {
    use palisade::{Classified, TimeoutScope};
    use scylla::errors::{BrokenConnectionErrorKind, DbError, ExecutionError, RequestAttemptError};

    use super::*;

    fn tells(error: &Error) -> Tells {
        Tells::of(error, &error.class())
    }

    fn database(error: DbError) -> Error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new())).into()
    }

    fn torn_down() -> Error {
        let cause = BrokenConnectionErrorKind::TooManyOrphanedStreamIds(1_025);
        ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(cause.into())).into()
    }

    #[test]
    fn what_speaks_against_a_datacenter_and_what_does_not() {
        let wait = Duration::from_secs(1);
        let unavailable =
            DbError::Unavailable { consistency: Consistency::LocalQuorum, required: 2, alive: 1 };
        for error in [
            database(unavailable),
            database(DbError::ServerError),
            database(DbError::IsBootstrapping),
            ExecutionError::EmptyPlan.into(),
            ExecutionError::RequestTimeout(wait).into(),
            Rejection::timed_out(TimeoutScope::Attempt, wait).into(),
            Error::full(),
            Error::unservable("by a health layer"),
        ] {
            assert_eq!(tells(&error), Tells::Trouble, "{error}");
        }
        assert_eq!(tells(&Rejection::circuit_open(None).into()), Tells::Refused);
        assert_eq!(tells(&database(DbError::Overloaded)), Tells::Answer);
        for error in [
            database(DbError::SyntaxError),
            Rejection::Draining.into(),
            Rejection::rate_limited(None).into(),
            Rejection::timed_out(TimeoutScope::Queue, wait).into(),
            // The driver has torn a connection down on which nobody has answered for long.
            torn_down(),
            ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId).into(),
        ] {
            assert_eq!(tells(&error), Tells::Nothing, "{error}");
        }
    }
}
