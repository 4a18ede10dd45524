//! What does the end of an attempt tell of the node?

use palisade::{Class, Effect, Fault};

use crate::error::ErrorKind;

/// It did not answer.
pub(super) const UNREACHABLE: Class = Class::new(Fault::Unreachable, Effect::Unknown);

/// What came from the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Something,
    Nothing,
    NotAsked,
}

pub(super) const fn said(kind: ErrorKind) -> Said {
    match kind {
        ErrorKind::Timeout(_) | ErrorKind::Unreachable => Said::Nothing,
        ErrorKind::ConnectionFull | ErrorKind::Connect | ErrorKind::Values => Said::NotAsked,
        _ => Said::Something,
    }
}

/// What an error tells of the node that was asked, and not of the statement or of other nodes.
///
/// Having too much to do is no sign of death: what answers "overloaded" is alive, and needs less traffic rather than none. That
/// is for a throttle to see to. A coordinator that has too few replicas is one that cannot reach them: if it alone says so,
/// others are better asked.
pub(super) const fn class_for_node(kind: ErrorKind) -> Class {
    let fault = match kind {
        ErrorKind::Timeout(_) | ErrorKind::Unreachable | ErrorKind::Bootstrapping => Fault::Unreachable,
        ErrorKind::Unavailable
        | ErrorKind::ReadTimeout
        | ErrorKind::WriteTimeout
        | ErrorKind::ReadFailure
        | ErrorKind::WriteFailure
        | ErrorKind::Server
        | ErrorKind::Protocol
        | ErrorKind::Truncate => Fault::Server,
        ErrorKind::Overloaded | ErrorKind::RateLimited | ErrorKind::ConnectionFull => Fault::Overload,
        _ => Fault::Caller,
    };
    Class::new(fault, Effect::Unknown)
}
