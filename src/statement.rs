//! What a caller hands to a client: a statement, and what is to be different for it.

use std::{borrow::Cow, time::Duration};

use palisade::Priority;
use scylla::statement::{Consistency, SerialConsistency};

use crate::{
    prepared::Prepared,
    request::{Options, option_methods},
};

/// Rows a page, unless the caller says otherwise: the protocol's customary number.
const PAGE_SIZE: i32 = 5_000;

/// Pages a result, unless the caller says otherwise: with the default page size, half a million rows.
const MAX_PAGES: usize = 100;

/// A statement, and what is to be different for it than for others.
///
/// A text is a statement by itself, so most calls need none of this:
///
/// ```no_run
/// use std::time::Duration;
/// use scylla::statement::Consistency;
/// use tower_cassandra::{Client, Cassandra, Statement};
///
/// # async fn example(client: Client<Cassandra>, id: i64) -> Result<(), tower_cassandra::Error> {
/// client.execute("SELECT name FROM app.users WHERE id = ?", (id,)).await?;
///
/// let careful = Statement::new("SELECT name FROM app.users WHERE id = ?")
///     .consistency(Consistency::All)
///     .timeout(Duration::from_secs(5));
/// client.execute(careful, (id,)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) options: Options,
    pub(crate) idempotent: Option<bool>,
    pub(crate) max_pages: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Source<'a> {
    Text(Cow<'a, str>),
    Prepared(Prepared),
}

impl<'a> Statement<'a> {
    /// A statement by its text.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self::of(Source::Text(text.into()))
    }

    fn of(source: Source<'a>) -> Self {
        let options = Options { page_size: Some(PAGE_SIZE), ..Options::default() };
        Self { source, options, idempotent: None, max_pages: MAX_PAGES }
    }

    option_methods!();

    /// Rows a page. Default 5,000. Values below 1 count as 1.
    pub fn page_size(mut self, rows: i32) -> Self {
        self.options.page_size = Some(rows.max(1));
        self
    }

    /// The most pages that [`Client::execute`](crate::Client::execute) reads before it gives up. Default 100. 0 counts as 1.
    pub fn max_pages(mut self, pages: usize) -> Self {
        self.max_pages = pages.max(1);
        self
    }

    /// Says whether the statement may be applied twice, where the text does not say or says otherwise.
    ///
    /// `true` for a statement that provably may not, such as a counter update, is refused when it is executed.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// The same by its text, so that it is prepared anew.
    pub(crate) fn anew(&self) -> Statement<'_> {
        Statement { source: Source::Text(Cow::Borrowed(self.text())), ..*self }
    }

    pub(crate) fn text(&self) -> &str {
        match &self.source {
            Source::Text(text) => text,
            Source::Prepared(prepared) => prepared.text(),
        }
    }
}

impl<'a> From<&'a str> for Statement<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<'a> From<&'a String> for Statement<'a> {
    fn from(text: &'a String) -> Self {
        Self::new(text)
    }
}

impl From<String> for Statement<'_> {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&Prepared> for Statement<'_> {
    fn from(prepared: &Prepared) -> Self {
        Self::of(Source::Prepared(prepared.clone()))
    }
}

impl From<Prepared> for Statement<'_> {
    fn from(prepared: Prepared) -> Self {
        Self::of(Source::Prepared(prepared))
    }
}
