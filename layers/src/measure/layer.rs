use std::{borrow::Cow, fmt, sync::Arc};

use metrics::Label;
use tower::Layer;

use super::{ByRequest, Metrics, Unlabelled, labels::Book};
use crate::{ByError, ConfigError};

/// Counts and times calls. See the [module](super) for more.
///
/// Clones, and all services made by them, share the metrics.
pub struct MetricsLayer<C = ByError, L = Unlabelled> {
    shared: Arc<Shared<C, L>>,
}

/// What all services of one layer share.
pub(super) struct Shared<C, L> {
    pub(super) book: Book<C>,
    pub(super) label_by: L,
    name: &'static str,
}

impl Default for MetricsLayer {
    fn default() -> Self {
        Self::from_builder(Self::builder())
    }
}

impl MetricsLayer {
    /// A layer with the default settings, whose metrics carry the label `layer` with this name.
    pub fn named(name: &'static str) -> Self {
        Self::from_builder(Self::builder().named(name))
    }

    /// A layer with other settings than the default ones.
    pub const fn builder() -> MetricsBuilder {
        MetricsBuilder {
            name: "metrics",
            labels: Vec::new(),
            by: None,
            label_by: Unlabelled,
            classifier: ByError,
        }
    }
}

impl<C, L> MetricsLayer<C, L> {
    fn from_builder(builder: MetricsBuilder<C, L>) -> Self {
        let mut labels = vec![Label::from_static_parts("layer", builder.name)];
        labels.extend(builder.labels.into_iter().map(|(key, value)| Label::new(key, value.into_owned())));
        let book = match builder.by {
            Some((key, max_values)) => Book::new(builder.classifier, labels, key, max_values),
            None => Book::unlabelled(builder.classifier, labels),
        };
        Self { shared: Arc::new(Shared { book, label_by: builder.label_by, name: builder.name }) }
    }
}

impl<S, C, L> Layer<S> for MetricsLayer<C, L> {
    type Service = Metrics<S, C, L>;

    fn layer(&self, inner: S) -> Metrics<S, C, L> {
        Metrics::new(inner, Arc::clone(&self.shared))
    }
}

impl<C, L> Clone for MetricsLayer<C, L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C, L> fmt::Debug for MetricsLayer<C, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<C, L> fmt::Debug for Shared<C, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsLayer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Builds a [`MetricsLayer`].
#[derive(Clone, Debug)]
pub struct MetricsBuilder<C = ByError, L = Unlabelled> {
    name: &'static str,
    labels: Vec<(&'static str, Cow<'static, str>)>,
    by: Option<(&'static str, usize)>,
    label_by: L,
    classifier: C,
}

impl<C, L> MetricsBuilder<C, L> {
    /// Sets the label `layer` of its metrics, to tell several apart. Default `metrics`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Adds a label that is the same for all calls.
    pub fn label(mut self, key: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((key, value.into()));
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> MetricsBuilder<D, L> {
        MetricsBuilder {
            name: self.name,
            labels: self.labels,
            by: self.by,
            label_by: self.label_by,
            classifier,
        }
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a label's name cannot be one or is taken, or if `max_values` is not from 1 to 10,000.
    pub fn build(self) -> Result<MetricsLayer<C, L>, ConfigError> {
        for (setting, key, before) in self.keys() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !key.chars().all(word) {
                return Err(ConfigError::new(
                    setting,
                    format!(
                        "has the key {key:?}, but it must be of letters, digits and underscores, no digit first"
                    ),
                ));
            }
            if ["layer", "outcome"].contains(&key) || before.contains(&key) {
                return Err(ConfigError::new(
                    setting,
                    format!("has the key {key:?}, which is there already: choose another"),
                ));
            }
        }
        if let Some((_, max_values)) = self.by
            && !(1..=10_000).contains(&max_values)
        {
            return Err(ConfigError::new(
                "label_by",
                format!(
                    "has {max_values} for `max_values`, but it must be from 1 to 10,000: each is a series for ever"
                ),
            ));
        }
        Ok(MetricsLayer::from_builder(self))
    }

    /// Each key with the setting that it comes from, and the keys before it.
    fn keys(&self) -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static str>)> {
        let fixed = self.labels.iter().map(|(key, _)| ("label", *key));
        let keys: Vec<_> = fixed.chain(self.by.map(|(key, _)| ("label_by", key))).collect();
        let before = keys.iter().map(|(_, key)| *key).collect::<Vec<_>>();
        keys.into_iter().enumerate().map(move |(at, (setting, key))| (setting, key, before[..at].to_vec()))
    }
}

impl<C> MetricsBuilder<C> {
    /// Adds a label whose value `value` tells for each request. The first `max_values` values that are seen, 1 to
    /// 10,000, get a series each; all later ones are counted as `other`.
    ///
    /// Still, take what comes from the program (an operation, a route) rather than what callers can make up.
    ///
    /// ```
    /// use palisade::MetricsLayer;
    ///
    /// let layer = MetricsLayer::builder()
    ///     .label_by("method", 10, |request: &http::Request<()>| request.method().as_str().into())
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<_, palisade::ConfigError>(())
    /// ```
    pub fn label_by<Req, F>(
        self,
        key: &'static str,
        max_values: usize,
        value: F,
    ) -> MetricsBuilder<C, ByRequest<F>>
    where
        F: Fn(&Req) -> Cow<'_, str>,
    {
        MetricsBuilder {
            name: self.name,
            labels: self.labels,
            by: Some((key, max_values)),
            label_by: ByRequest(value),
            classifier: self.classifier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<C, L>(builder: MetricsBuilder<C, L>) -> String {
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn labels_that_cannot_be_are_refused_with_what_to_do() {
        let new = MetricsLayer::builder;
        assert!(refused(new().label("outcome", "x")).contains("choose another"));
        assert!(refused(new().label("a", "x").label("a", "y")).contains("choose another"));
        assert!(refused(new().label("", "x")).contains("letters"));
        assert!(refused(new().label("1a", "x")).contains("no digit first"));
        let by =
            |key, max_values| refused(new().label("a", "x").label_by(key, max_values, |(): &()| "x".into()));
        assert!(by("a", 1).contains("choose another"));
        assert!(by("b", 0).contains("from 1 to 10,000"));
        assert!(by("b", 10_001).starts_with("`label_by` has 10001"));
    }
}
