//! The request capabilities of [`http::Request`], through its extensions and its method.
//!
//! - The deadline and the priority are kept in the extensions as [`RequestDeadline`] and [`Priority`].
//! - A request may be repeated after an unknown effect if its method is idempotent ([RFC 9110, 9.2.2]), unless an
//!   [`Idempotence`] in its extensions says otherwise. It is hedged only if its method is safe, or an
//!   `Idempotence::Yes` stands in its extensions. A copy needs a body that is `Clone`.
//!
//! [RFC 9110, 9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2

use http::Request;

use crate::{
    clock::Instant,
    request::{HasDeadline, HasPriority, Idempotence, Priority, Repeat, Why},
};

/// The deadline of a request, in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct RequestDeadline(pub Instant);

impl<B> HasDeadline for Request<B> {
    fn deadline(&self) -> Option<Instant> {
        self.extensions().get::<RequestDeadline>().map(|deadline| deadline.0)
    }

    fn shorten_deadline(&mut self, at: Instant) {
        let at = self.deadline().map_or(at, |earlier| earlier.min(at));
        self.extensions_mut().insert(RequestDeadline(at));
    }
}

impl<B> HasPriority for Request<B> {
    fn priority(&self) -> Priority {
        self.extensions().get().copied().unwrap_or_default()
    }
}

impl<B: Clone> Repeat for Request<B> {
    fn repeat(&self, why: Why) -> Option<Self> {
        let stated = self.extensions().get::<Idempotence>().copied();
        let by_method = |yes| if yes { Idempotence::Yes } else { Idempotence::No };
        let allowed = match why {
            Why::Spare => true,
            Why::Retry(class) => stated.unwrap_or(by_method(self.method().is_idempotent())).permits(&class),
            Why::Hedge => stated.unwrap_or(by_method(self.method().is_safe())) == Idempotence::Yes,
        };
        allowed.then(|| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::{Class, Effect, Fault};

    fn request(method: Method) -> Request<()> {
        Request::builder().method(method).body(()).unwrap()
    }

    #[test]
    fn a_post_is_repeated_only_if_it_surely_did_nothing_or_says_that_it_may_be() {
        let unknown = Why::Retry(Class::new(Fault::Server, Effect::Unknown));
        let refused = Why::Retry(Class::new(Fault::Overload, Effect::NotApplied));
        assert!(request(Method::POST).repeat(unknown).is_none());
        assert!(request(Method::POST).repeat(refused).is_some());
        assert!(request(Method::PUT).repeat(unknown).is_some());

        let mut keyed = request(Method::POST);
        keyed.extensions_mut().insert(Idempotence::Yes);
        assert!(keyed.repeat(unknown).is_some());
    }

    #[test]
    fn only_a_safe_method_is_hedged() {
        assert!(request(Method::GET).repeat(Why::Hedge).is_some());
        assert!(request(Method::DELETE).repeat(Why::Hedge).is_none());
    }

    #[test]
    fn a_deadline_travels_in_the_extensions() {
        let at = Instant::now() + Duration::from_secs(1);
        let mut get = request(Method::GET);
        get.shorten_deadline(at);
        get.shorten_deadline(at + Duration::from_secs(1));
        assert_eq!(get.repeat(Why::Spare).unwrap().deadline(), Some(at));
    }
}
