use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use scylla::{
    response::PagingState,
    statement::{Consistency, SerialConsistency},
};

use super::{Kind, Operation, Request, Row};

/// What two reads have in common when one answer does for both: the statement, its values, the page, the
/// consistency, and the datacenter that was asked for.
///
/// For a [`CoalesceLayer`](palisade::CoalesceLayer), by [`Request::read_key`]. It cannot tell sessions, users or keyspaces
/// apart: they are those of the stack.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadKey {
    text: Arc<str>,
    row: Option<Arc<Row>>,
    page: Option<PagingState>,
    page_size: Option<i32>,
    consistency: Option<Consistency>,
    serial_consistency: Option<SerialConsistency>,
    datacenter: Option<Arc<str>>,
}

impl Hash for ReadKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
        self.row.hash(state);
        self.page.as_ref().and_then(|page| page.as_bytes_slice()).hash(state);
    }
}

/// Values are left out: they may be secret.
impl fmt::Debug for ReadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadKey").field("statement", &self.text).finish_non_exhaustive()
    }
}

impl Request {
    /// The key under which a read may share its answer, or `None` for what has to be asked for by itself: anything but a read, a
    /// read at `SERIAL` or `LOCAL_SERIAL`, which has to see whatever was written before it began, one that asks for a trace, and one whose
    /// values are not known here. (A level that the session has by itself is not known here either: where that is serial, share no reads.) [`Client::read_keys`](crate::Client::read_keys) makes them known.
    ///
    /// ```
    /// use palisade::CoalesceLayer;
    /// use tower_cassandra::Request;
    ///
    /// let layer = CoalesceLayer::builder(Request::read_key).deadline_aware().build()?;
    /// # let _ = layer;
    /// let by_text = Request::text("SELECT release_version FROM system.local");
    /// assert_eq!(by_text.read_key(), by_text.clone().read_key());
    /// assert_eq!(Request::text("TRUNCATE users").read_key(), None);
    /// # Ok::<_, palisade::ConfigError>(())
    /// ```
    pub fn read_key(&self) -> Option<ReadKey> {
        let is_serial =
            matches!(self.options.consistency, Some(Consistency::Serial | Consistency::LocalSerial));
        if self.kind != Kind::Read || is_serial || self.options.tracing == Some(true) {
            return None;
        }
        let (text, row, page) = match &self.operation {
            Operation::Text { text, row, page } => (Arc::clone(text), row.clone(), Some(page.clone())),
            Operation::Bound { page, .. } => {
                let (text, row) = self.read.as_ref()?;
                (Arc::clone(text), Some(Arc::clone(row)), page.clone())
            }
            Operation::Prepare { .. } | Operation::Batch { .. } => return None,
        };
        Some(ReadKey {
            text,
            row,
            page,
            page_size: self.options.page_size,
            consistency: self.options.consistency,
            serial_consistency: self.options.serial_consistency,
            datacenter: self.datacenter.clone(),
        })
    }

    /// Tells which read it is, so that it has a key.
    pub(crate) fn with_read_of(mut self, text: Arc<str>, row: Row) -> Self {
        self.read = Some((text, Arc::new(row)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_differ_in_what_the_answer_depends_on_have_different_keys() {
        let read = || Request::text("SELECT * FROM t WHERE k = 1");
        let key = read().read_key();
        assert!(key.is_some());
        assert_eq!(key, read().with_priority(palisade::Priority::Low).read_key());
        for other in [
            Request::text("SELECT * FROM t WHERE k = 2"),
            read().with_consistency(Consistency::All),
            read().with_serial_consistency(SerialConsistency::LocalSerial),
            read().with_page_size(7),
            read().with_datacenter("dc2"),
            read().with_page(PagingState::new_from_raw_bytes(&b"next"[..])),
        ] {
            assert!(other.read_key().is_some());
            assert_ne!(key, other.read_key(), "{other:?}");
        }
    }

    #[test]
    fn what_has_to_be_asked_for_by_itself_has_no_key() {
        let read = || Request::text("SELECT * FROM t WHERE k = 1");
        for alone in [
            read().with_consistency(Consistency::Serial),
            read().with_consistency(Consistency::LocalSerial),
            read().with_tracing(true),
            Request::text("INSERT INTO t (k) VALUES (1)"),
            Request::prepare("SELECT * FROM t"),
        ] {
            assert_eq!(alone.read_key(), None, "{alone:?}");
        }
    }
}
