//! The request capabilities of [`http::Request`], through its extensions and its method.
//!
//! - The deadline and the priority are kept in the extensions as [`RequestDeadline`] and [`Priority`].
//! - A request may be repeated after an unknown effect if its method is idempotent ([RFC 9110, 9.2.2]), unless an
//!   [`Idempotence`] in its extensions says otherwise. It is hedged only if its method is safe, or an
//!   `Idempotence::Yes` stands in its extensions. A copy needs a body that is `Clone`.
//!
//! [`ByStatus`] tells what a response means, for clients.
//!
//! [RFC 9110, 9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2

use std::time::Duration;

use http::{Request, Response, StatusCode, header::RETRY_AFTER};

use crate::{
    class::{Class, Classified, Classify, Effect, Fault},
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

    fn lift_deadline(&mut self) {
        self.extensions_mut().remove::<RequestDeadline>();
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

/// A classifier for the client's side: a response can be a failure too.
///
/// | status | fault | effect |
/// | --- | --- | --- |
/// | up to 399 | none | applied |
/// | 408 | unreachable | unknown |
/// | 429 | overload | not applied |
/// | other 4xx | caller | not applied |
/// | 502, 504 | unreachable, may do elsewhere | unknown |
/// | 503 | overload, may do elsewhere | unknown |
/// | other 5xx | server | unknown |
///
/// `Retry-After` in seconds is passed on. An error says itself what it means, as with [`ByError`](crate::ByError).
///
/// A response that asks for a repeat but is not repeated is passed to the caller as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus;

impl<B, E: Classified> Classify<Response<B>, E> for ByStatus {
    fn classify(&self, outcome: Result<&Response<B>, &E>) -> Class {
        let response = match outcome {
            Ok(response) => response,
            Err(error) => return error.class(),
        };
        let class = match response.status() {
            status if status.as_u16() < 400 => return Class::SUCCESS,
            StatusCode::REQUEST_TIMEOUT => Class::new(Fault::Unreachable, Effect::Unknown),
            StatusCode::TOO_MANY_REQUESTS => Class::new(Fault::Overload, Effect::NotApplied),
            status if status.is_client_error() => Class::new(Fault::Caller, Effect::NotApplied),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                Class::new(Fault::Unreachable, Effect::Unknown).elsewhere()
            }
            StatusCode::SERVICE_UNAVAILABLE => Class::new(Fault::Overload, Effect::Unknown).elsewhere(),
            _ => Class::new(Fault::Server, Effect::Unknown),
        };
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        match seconds {
            Some(seconds) => class.with_retry_after(Duration::from_secs(seconds)),
            None => class,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_status_tells_whose_fault_it_is_and_when_to_come_back() {
        let classify = |status: u16, retry_after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(value) = retry_after {
                response = response.header(RETRY_AFTER, value);
            }
            ByStatus.classify(Ok::<_, &crate::Rejection>(&response.body(()).unwrap()))
        };
        for (status, fault, effect) in [
            (200, Fault::None, Effect::Applied),
            (304, Fault::None, Effect::Applied),
            (400, Fault::Caller, Effect::NotApplied),
            (404, Fault::Caller, Effect::NotApplied),
            (408, Fault::Unreachable, Effect::Unknown),
            (429, Fault::Overload, Effect::NotApplied),
            (500, Fault::Server, Effect::Unknown),
            (502, Fault::Unreachable, Effect::Unknown),
            (503, Fault::Overload, Effect::Unknown),
            (504, Fault::Unreachable, Effect::Unknown),
        ] {
            let class = classify(status, None);
            assert_eq!((class.fault(), class.effect()), (fault, effect), "{status}");
            assert_eq!(class.may_do_elsewhere(), matches!(status, 502..=504), "{status}");
        }
        assert_eq!(classify(503, Some("7")).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(classify(503, Some("Fri, 31 Dec 1999 23:59:59 GMT")).retry_after(), None);
        let refused = crate::Rejection::Draining;
        assert_eq!(Classify::<Response<()>, _>::classify(&ByStatus, Err(&refused)), refused.class());
    }

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
