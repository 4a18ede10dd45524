//! The answer to a request.

use std::{net::SocketAddr, sync::Arc};

use scylla::{
    deserialize::row::DeserializeRow,
    errors::DeserializationError,
    response::{
        Coordinator, PagingState, PagingStateResponse,
        query_result::{ColumnSpecs, QueryResult, QueryRowsResult},
    },
    value::{CqlValue, Row as DynamicRow},
};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{
    error::{Error, ErrorKind},
    prepared::{Prepared, Statements},
};

/// The answer of the cluster to one request: rows, or the word that it was done.
///
/// Rows are read as any type that the driver can read them as: tuples of Rust types, a struct that derives
/// [`scylla::DeserializeRow`], or [`scylla::value::Row`] where the types are not known. Clones share the rows.
#[derive(Clone, Debug, Default)]
pub struct Response {
    // Shared by copies: whoever gets the same answer reads the same bytes.
    pages: SmallVec<[Arc<QueryRowsResult>; 1]>,
    next_page: Option<PagingState>,
    coordinator: Option<Coordinator>,
    warnings: Vec<String>,
    tracing_ids: Vec<Uuid>,
    // With the statements that it is kept among, so that a client can look there.
    prepared: Option<(Prepared, Arc<Statements>)>,
}

impl Response {
    pub(crate) fn of_prepared(prepared: Prepared, kept_among: &Arc<Statements>) -> Self {
        Self { prepared: Some((prepared, Arc::clone(kept_among))), ..Self::default() }
    }

    pub(crate) fn of_result(result: QueryResult, next: PagingStateResponse) -> Result<Self, Error> {
        let mut response = Self {
            next_page: next.into_paging_control_flow().continue_value(),
            coordinator: Some(result.request_coordinator().clone()),
            warnings: result.warnings().map(str::to_owned).collect(),
            tracing_ids: result.tracing_id().into_iter().collect(),
            ..Self::default()
        };
        if result.is_rows() {
            let page = result.into_rows_result().map_err(|error| unreadable(&error))?;
            response.pages.push(Arc::new(page));
        }
        Ok(response)
    }

    /// Adds the page that follows.
    pub(crate) fn append(&mut self, page: Self) {
        self.pages.extend(page.pages);
        self.next_page = page.next_page;
        self.coordinator = page.coordinator;
        self.warnings.extend(page.warnings);
        self.tracing_ids.extend(page.tracing_ids);
    }

    /// Whether the answer has rows, be it none: a write without a condition has not.
    pub fn is_rows(&self) -> bool {
        !self.pages.is_empty()
    }

    /// How many rows there are.
    pub fn rows_num(&self) -> usize {
        self.pages.iter().map(|page| page.rows_num()).sum()
    }

    /// The names and types of the columns.
    pub fn columns(&self) -> Option<ColumnSpecs<'_, '_>> {
        self.pages.first().map(|page| page.column_specs())
    }

    /// All rows, read one by one as the iterator goes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rows`] if there are no rows in such an answer, or if they cannot be read as `R`. The iterator
    /// yields the same for a row with a value that does not fit, such as a null in a type that cannot hold one.
    pub fn rows<'a, R: DeserializeRow<'a, 'a>>(
        &'a self,
    ) -> Result<impl Iterator<Item = Result<R, Error>>, Error> {
        self.first_page()?;
        let pages = self.pages.iter().map(|page| page.rows::<R>().map_err(|error| unreadable(&error)));
        let pages = pages.collect::<Result<Vec<_>, _>>()?;
        Ok(pages.into_iter().flatten().map(|row| row.map_err(|error| undecodable(&error))))
    }

    /// The only row.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rows`] if there is not exactly one, or if it cannot be read as `R`.
    pub fn single_row<'a, R: DeserializeRow<'a, 'a>>(&'a self) -> Result<R, Error> {
        self.maybe_row()?.ok_or_else(|| rows("one row was expected, and there is none"))
    }

    /// The only row, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rows`] if there is more than one, or if it cannot be read as `R`.
    pub fn maybe_row<'a, R: DeserializeRow<'a, 'a>>(&'a self) -> Result<Option<R>, Error> {
        let count = self.rows_num();
        if count > 1 {
            return Err(rows(format!("at most one row was expected, and there are {count}")));
        }
        self.rows()?.next().transpose()
    }

    /// The first row of any number, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rows`] if it cannot be read as `R`.
    pub fn first<'a, R: DeserializeRow<'a, 'a>>(&'a self) -> Result<Option<R>, Error> {
        self.rows()?.next().transpose()
    }

    /// Whether a lightweight transaction was applied.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rows`] if the statement had no condition, so that the answer does not say.
    pub fn applied(&self) -> Result<bool, Error> {
        let unconditional = || rows("only a statement with a condition (IF) says whether it was applied");
        let page = self.pages.first().ok_or_else(unconditional)?;
        let (index, _) = page.column_specs().get_by_name("[applied]").ok_or_else(unconditional)?;
        let row: Option<DynamicRow> = self.first()?;
        match row.and_then(|row| row.columns.into_iter().nth(index).flatten()) {
            Some(CqlValue::Boolean(applied)) => Ok(applied),
            _ => Err(unconditional()),
        }
    }

    /// Where the next page begins. `None` at the end, and always after
    /// [`Client::execute`](crate::Client::execute), which reads to the end.
    pub fn next_page(&self) -> Option<&PagingState> {
        self.next_page.as_ref()
    }

    /// The node that answered, the last one where there were several pages.
    pub fn node(&self) -> Option<SocketAddr> {
        self.coordinator.as_ref().map(Coordinator::connection_address)
    }

    /// The node that answered, with its host id, datacenter and rack.
    pub fn coordinator(&self) -> Option<&Coordinator> {
        self.coordinator.as_ref()
    }

    /// The server's warnings: a batch that is too large, for example, or a read over many tombstones.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The ids of the server's traces, one a page, where tracing was asked for.
    pub fn tracing_ids(&self) -> &[Uuid] {
        &self.tracing_ids
    }

    /// The statement that was prepared, for a [`Request::prepare`](crate::Request::prepare).
    pub fn prepared(&self) -> Option<&Prepared> {
        self.prepared.as_ref().map(|(prepared, _)| prepared)
    }

    pub(crate) fn into_prepared(self) -> Option<(Prepared, Arc<Statements>)> {
        self.prepared
    }

    fn first_page(&self) -> Result<&QueryRowsResult, Error> {
        let page = self.pages.first().ok_or_else(|| rows("the answer to this statement has no rows"))?;
        Ok(page)
    }
}

fn rows(message: impl Into<String>) -> Error {
    Error::answer(ErrorKind::Rows, message)
}

fn unreadable(error: &dyn std::error::Error) -> Error {
    rows(format!("the rows cannot be read: {error}"))
}

fn undecodable(error: &DeserializationError) -> Error {
    rows(format!("a row cannot be read: {error}"))
}
