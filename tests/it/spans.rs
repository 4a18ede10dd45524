//! What a trace of a call shows.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use palisade::{Backoff, RetryLayer};
use scylla_proxy::{Condition, RequestOpcode, RequestReaction};
use tower::ServiceBuilder;
use tower_cassandra::Client;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::proxy::Proxied;

/// Spans that have ended, by name, each with its fields.
#[derive(Clone, Default)]
pub(crate) struct Ended(pub(crate) Arc<Mutex<Vec<(&'static str, Fields)>>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        cx.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        let span = cx.span(id).unwrap();
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        let span = cx.span(&id).unwrap();
        if span.name().starts_with("cassandra") {
            let fields = span.extensions_mut().remove::<Fields>().unwrap_or_default();
            self.0.lock().unwrap().push((span.name(), fields));
        }
    }
}

#[tokio::test]
async fn a_span_for_the_call_holds_one_for_each_attempt_and_their_story() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let bare = proxied.client_with_table("spans").await;
    let retry = RetryLayer::builder().backoff(Backoff::NONE).build().unwrap();
    let client = Client::new(ServiceBuilder::new().layer(retry).service(bare.stack().clone()));
    let select = "SELECT v FROM spans WHERE k = ?";
    client.execute(select, ("a secret",)).await.unwrap_err();
    client.execute(select, (1,)).await.unwrap();

    let execute = Condition::RequestOpcode(RequestOpcode::Execute);
    let once = Condition::and(execute, Condition::TrueForLimitedTimes(1));
    let _forged = proxied.react(once, RequestReaction::forge().overloaded());
    let ended = Ended::default();
    let subscriber = tracing_subscriber::registry().with(ended.clone());
    let guard = tracing::subscriber::set_default(subscriber);
    client.execute(select, (1,)).await.unwrap();
    client.execute(select, ("a secret",)).await.unwrap_err();
    drop(guard);

    let ended = ended.0.lock().unwrap().clone();
    let attempts: Vec<_> =
        ended.iter().filter(|span| span.0 == "cassandra.attempt").map(|span| &span.1.0).collect();
    assert_eq!(attempts.len(), 2, "{ended:?}");
    assert_eq!(attempts[0]["error.type"], "overloaded");
    assert_eq!(attempts[0]["db.response.status_code"], "0x1001");
    assert!(!attempts[1].contains_key("error.type"));
    let peer = |fields: &HashMap<&str, String>| {
        format!("{}:{}", fields["network.peer.address"], fields["network.peer.port"])
    };
    assert!(attempts.iter().all(|fields| peer(fields) == proxied.address().to_string()));
    assert!(attempts.iter().all(|fields| fields.contains_key("cassandra.coordinator.dc")), "{attempts:?}");
    assert!(attempts.iter().all(|fields| fields["kind"] == "read"));

    let calls: Vec<_> = ended.iter().filter(|span| span.0 == "cassandra").map(|span| &span.1.0).collect();
    assert_eq!(calls.len(), 2, "{ended:?}");
    assert_eq!(calls[0]["operation"], "execute");
    assert!(calls[0]["attempts"].contains("overloaded after"), "{calls:?}");
    assert!(calls[0]["attempts"].contains("answered after"), "{calls:?}");
    assert_eq!(calls[1]["error"], "values");
    assert!(!format!("{ended:?}").contains("secret"), "a value has no place in a trace");
}
