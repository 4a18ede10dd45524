//! May a statement be applied twice?
//!
//! After a timeout nobody knows whether a write took effect. If applying it twice leaves the same state as
//! applying it once, it can simply be sent again; if not, sending it again counts a click twice or bills a customer
//! twice. The driver leaves that to a flag, which is off by default and which nobody checks. Here the statement's
//! text answers, together with the types of its bind markers where it is prepared:
//!
//! | statement | may be repeated |
//! | --- | --- |
//! | `SELECT` | yes |
//! | `INSERT`, `UPDATE`, `DELETE` by key | yes |
//! | adding to or removing from a set or a map | yes |
//! | updating a counter | no |
//! | appending or prepending to a list, deleting a list's element by its index | no |
//! | with `now()`, `uuid()` or the like | no |
//! | a lightweight transaction (`IF`) | no: the repeat would answer "not applied" to what was applied |
//! | removing values from a list, setting a list's element by its index | not known: it depends on what others do |
//! | writing a whole list | not known: see below |
//! | with a function that the user defined | not known |
//! | a batch | as its members |
//! | schema changes, `TRUNCATE`, roles and permissions | not known |
//!
//! What is not known is treated as a no, until the caller says otherwise
//! ([`Statement::idempotent`](crate::Statement::idempotent)). The caller's word counts, except where it is provably
//! wrong: a counter update that is called idempotent is refused.
//!
//! # Whole lists
//!
//! Cassandra stores each element of a list under an id that the coordinator makes, and writes a whole list as a
//! deletion of what is older than the write, followed by the elements. Two attempts with the same timestamp do not
//! delete each other's elements: the list would hold everything twice. So a write of a whole list (not a frozen
//! one) never gets a client timestamp here, nor does what may be one, and it is repeated only if the caller says that it
//! may be.

mod analysis;
mod columns;
mod write;

use std::{error::Error, fmt};

use palisade::Idempotence;

pub use self::analysis::{Analysis, Verb, analyze};
pub(crate) use self::columns::refine;

/// Whether a statement may be applied twice, and what speaks against it.
///
/// ```
/// use tower_cassandra::{idempotence::{Reason, analyze}, layers::Idempotence};
///
/// let statement = analyze("UPDATE app.clicks SET n = n + 1 WHERE page = 'home'");
/// assert_eq!(statement.verdict().idempotence(), Idempotence::No);
/// assert_eq!(statement.verdict().reason(), Some(Reason::Counter));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    reason: Option<Reason>,
}

impl Verdict {
    /// Whether the statement may be applied twice.
    pub fn idempotence(self) -> Idempotence {
        self.reason.map_or(Idempotence::Yes, Reason::idempotence)
    }

    /// What speaks against applying it twice.
    pub fn reason(self) -> Option<Reason> {
        self.reason
    }

    /// Whether all attempts can carry one timestamp: not where a whole list is written, or may be.
    pub(crate) fn can_be_stamped(self) -> bool {
        self.reason.is_none()
    }

    fn because(reason: Reason) -> Self {
        Self { reason: Some(reason) }
    }

    /// Both together: what is proved outweighs what is not known.
    fn and(self, other: Self) -> Self {
        let reason = match (self.reason, other.reason) {
            (Some(ours), Some(theirs)) if !ours.is_proof() && theirs.is_proof() => Some(theirs),
            (ours, theirs) => ours.or(theirs),
        };
        Self { reason }
    }
}

/// What speaks against applying a statement twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It updates a counter.
    Counter,
    /// It adds to a list.
    ListAppend,
    /// It deletes an element of a list by its index.
    ListElementDeleted,
    /// It calls `now()`, `uuid()` or the like, which give another value each time.
    NotDeterministic,
    /// It is a lightweight transaction.
    Condition,
    /// It removes values from a list, and would remove equal ones that came in between.
    ListRemoval,
    /// It sets an element of a list by its index, which may be another one by then.
    ListElementSet,
    /// It writes a whole list, which must not happen twice with one timestamp.
    WholeList,
    /// It adds to or removes from a column of which the type is not known.
    UnknownColumn,
    /// It calls a function of which nothing is known.
    UnknownFunction,
    /// It is neither a query nor a write of rows.
    Administration,
    /// It is not understood.
    NotUnderstood,
}

impl Reason {
    /// Whether it proves that the statement may not be applied twice.
    const fn is_proof(self) -> bool {
        matches!(
            self,
            Self::Counter
                | Self::ListAppend
                | Self::ListElementDeleted
                | Self::NotDeterministic
                | Self::Condition
        )
    }

    const fn idempotence(self) -> Idempotence {
        if self.is_proof() { Idempotence::No } else { Idempotence::Unknown }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "it updates a counter, and twice would count twice",
            Self::ListAppend => "it adds to a list, and twice would add twice",
            Self::ListElementDeleted => {
                "it deletes an element of a list by its index, and twice would delete two"
            }
            Self::NotDeterministic => {
                "it calls a function such as now() or uuid(), which gives another value each time: \
                 make the value in the client and bind it"
            }
            Self::Condition => {
                "it has a condition (IF), and the second time would answer that it was not applied"
            }
            Self::ListRemoval => "it removes values from a list, and may remove equal ones that came since",
            Self::ListElementSet => "it sets an element of a list by its index, which may be another by then",
            Self::WholeList => "it writes a whole list",
            Self::UnknownColumn => "it adds to or removes from a column of unknown type",
            Self::UnknownFunction => "it calls a function of which nothing is known",
            Self::Administration => "it is neither a query nor a write of rows",
            Self::NotUnderstood => "it is not understood",
        })
    }
}

/// The caller calls a statement idempotent that provably is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction(Reason);

impl Contradiction {
    /// What proves the caller wrong.
    pub fn reason(&self) -> Reason {
        self.0
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the statement is called idempotent, but {}; remove `idempotent(true)`", self.0)
    }
}

impl Error for Contradiction {}

/// The caller's word, where there is one and it is not provably wrong; else the verdict.
pub(crate) fn resolve(stated: Option<bool>, verdict: Verdict) -> Result<Idempotence, Contradiction> {
    match (stated, verdict.reason) {
        (Some(true), Some(reason)) if reason.is_proof() => Err(Contradiction(reason)),
        (Some(true), _) => Ok(Idempotence::Yes),
        (Some(false), _) => Ok(Idempotence::No),
        (None, _) => Ok(verdict.idempotence()),
    }
}

/// A batch is as idempotent as its members.
pub(crate) fn batch(is_counter: bool, members: impl IntoIterator<Item = Verdict>) -> Verdict {
    let own = if is_counter { Verdict::because(Reason::Counter) } else { Verdict::default() };
    members.into_iter().fold(own, Verdict::and)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Reason; 12] = [
        Reason::Counter,
        Reason::ListAppend,
        Reason::ListElementDeleted,
        Reason::NotDeterministic,
        Reason::Condition,
        Reason::ListRemoval,
        Reason::ListElementSet,
        Reason::WholeList,
        Reason::UnknownColumn,
        Reason::UnknownFunction,
        Reason::Administration,
        Reason::NotUnderstood,
    ];

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![Just(Verdict::default()), prop::sample::select(&ALL[..]).prop_map(Verdict::because)]
    }

    #[test]
    fn the_callers_word_counts_unless_it_is_provably_wrong() {
        for reason in ALL {
            let verdict = Verdict::because(reason);
            assert_eq!(resolve(Some(true), verdict).is_err(), verdict.idempotence() == Idempotence::No);
            assert_eq!(resolve(Some(false), verdict), Ok(Idempotence::No));
            assert_eq!(resolve(None, verdict), Ok(verdict.idempotence()));
        }
        assert_eq!(resolve(Some(false), Verdict::default()), Ok(Idempotence::No));
        assert_eq!(resolve(None, Verdict::default()), Ok(Idempotence::Yes));
    }

    #[test]
    fn a_contradiction_says_what_is_wrong_and_what_to_do() {
        let error = resolve(Some(true), Verdict::because(Reason::Counter)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the statement is called idempotent, but it updates a counter, and twice would count twice; \
             remove `idempotent(true)`"
        );
    }

    proptest! {
        #[test]
        fn a_batch_is_as_idempotent_as_its_worst_member(members in prop::collection::vec(verdict(), 0..6)) {
            let rank = |idempotence| match idempotence {
                Idempotence::Yes => 0,
                Idempotence::Unknown => 1,
                Idempotence::No => 2,
            };
            let worst = members.iter().map(|member| rank(member.idempotence())).max().unwrap_or(0);
            let whole = batch(false, members.iter().copied());
            prop_assert_eq!(rank(whole.idempotence()), worst);
            prop_assert_eq!(whole.can_be_stamped(), members.iter().all(|member| member.can_be_stamped()));
            prop_assert_eq!(batch(true, members.iter().copied()).idempotence(), Idempotence::No);
        }
    }
}
