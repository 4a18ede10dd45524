//! What is logged while a test runs.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Level, message and the given fields of each event, on this thread.
pub(crate) fn logged(fields: &'static [&'static str], test: impl FnOnce()) -> Vec<String> {
    LazyLock::force(&LISTENER);
    let logged = Logged { fields, events: Arc::default() };
    let events = Arc::clone(&logged.events);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(logged), test);

    std::mem::take(&mut *events.lock().unwrap())
}

struct Logged {
    fields: &'static [&'static str],
    events: Arc<Mutex<Vec<String>>>,
}

impl<S: Subscriber> Layer<S> for Logged {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String, &'static [&'static str]);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" || self.1.contains(&field.name()) {
                    write!(self.0, " {value:?}").unwrap();
                }
            }
        }
        let mut text = Text(event.metadata().level().to_string(), self.fields);
        event.record(&mut text);
        self.events.lock().unwrap().push(text.0);
    }
}

/// An event that a test without a subscriber meets first, while another one begins to listen, can be taken for one that nobody
/// wants, for ever. Not if somebody has not made up his mind.
static LISTENER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Undecided));

struct Undecided;

impl Subscriber for Undecided {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
