use std::{borrow::Cow, fmt, sync::Arc};

use metrics::Label;
use palisade::ConfigError;
use tower::Layer;

use super::{QueryText, Telemetry, book::Book};

/// Counts, times and traces operations. See the [module](super) for more.
///
/// Clones, and all services made by them, share the metrics.
#[derive(Clone)]
pub struct TelemetryLayer {
    shared: Arc<Shared>,
}

/// What all services of one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) book: Book,
    pub(super) text: QueryText,
}

impl TelemetryLayer {
    /// A layer with the default settings.
    pub fn new() -> Self {
        Self::from_builder(Self::builder())
    }

    /// A layer with other settings than the default ones.
    pub const fn builder() -> TelemetryBuilder {
        TelemetryBuilder { max_operations: 1_000, text: QueryText::Off, labels: Vec::new() }
    }

    fn from_builder(builder: TelemetryBuilder) -> Self {
        let labels = builder.labels.into_iter().map(|(key, value)| Label::new(key, value.into_owned()));
        let book = Book::new(builder.max_operations, labels.collect());
        Self { shared: Arc::new(Shared { book, text: builder.text }) }
    }
}

impl Default for TelemetryLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = Telemetry<S>;

    fn layer(&self, inner: S) -> Telemetry<S> {
        Telemetry::new(inner, Arc::clone(&self.shared))
    }
}

impl fmt::Debug for TelemetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryLayer").field("shared", &self.shared).finish()
    }
}

/// Builds a [`TelemetryLayer`].
#[derive(Clone, Debug)]
pub struct TelemetryBuilder {
    max_operations: usize,
    text: QueryText,
    labels: Vec<(&'static str, Cow<'static, str>)>,
}

/// More are no bound: the series of an operation take some hundred bytes here, and a multiple of that where they are stored.
const MOST_OPERATIONS: usize = 10_000;

impl TelemetryBuilder {
    /// How many operations, each a verb on a table, get metrics of their own. Default 1,000, at most 10,000. Others are counted
    /// by their verbs.
    pub const fn max_operations(mut self, operations: usize) -> Self {
        self.max_operations = operations;
        self
    }

    /// What of a statement's text is told by its span. Default [`QueryText::Off`].
    pub const fn query_text(mut self, text: QueryText) -> Self {
        self.text = text;
        self
    }

    /// Adds a label that is the same for all metrics of this layer: to tell two clusters apart, for example.
    pub fn label(mut self, key: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((key, value.into()));
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// If `max_operations` is not from 1 to 10,000, or if a label is empty, stands twice, or is one that the layer sets itself.
    pub fn build(self) -> Result<TelemetryLayer, ConfigError> {
        if !(1..=MOST_OPERATIONS).contains(&self.max_operations) {
            let problem = format!(
                "is {}, but must be from 1 to 10,000: so many operations have metrics of their own",
                self.max_operations
            );
            return Err(ConfigError::new("max_operations", problem));
        }
        for (at, (key, _)) in self.labels.iter().enumerate() {
            if key.is_empty() {
                return Err(ConfigError::new("label", "is empty: name it, or leave it out"));
            }
            if key.starts_with("db.") || *key == "error.type" {
                let problem = format!("is `{key}`, which the layer sets itself: choose another");
                return Err(ConfigError::new("label", problem));
            }
            if self.labels[..at].iter().any(|(before, _)| before == key) {
                let problem = format!("is `{key}`, and stands twice: choose another for one of them");
                return Err(ConfigError::new("label", problem));
            }
        }
        Ok(TelemetryLayer::from_builder(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let refused = |builder: TelemetryBuilder| builder.build().unwrap_err().to_string();
        let new = TelemetryLayer::builder;
        for operations in [0, MOST_OPERATIONS + 1] {
            assert!(refused(new().max_operations(operations)).contains("from 1 to 10,000"));
        }
        assert!(refused(new().label("", "x")).contains("name it"));
        assert!(refused(new().label("db.namespace", "x")).contains("choose another"));
        assert!(refused(new().label("error.type", "x")).contains("choose another"));
        assert!(refused(new().label("cluster", "x").label("cluster", "y")).contains("stands twice"));
        assert!(new().label("cluster", "x").max_operations(1).build().is_ok());
    }
}
