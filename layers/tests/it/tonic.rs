//! The layers around tonic's channel and server, over a real connection. The messages are plain text.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::{Buf, BufMut};
use palisade::{
    Backoff, ByError, Class, Classify, DeadlineLayer, Effect, Envelope, Fault, Idempotence, MetricsLayer,
    Rejection, RetryLayer, TimeoutLayer, TraceLayer, box_errors, classify_fn,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Server},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.into()).map(Some).map_err(|_| Status::internal("not a text"))
    }
}

/// A server that greets at every call but the first, which it never answers.
async fn greeter(limit: Duration) -> (Channel, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let greet = service_fn(move |request: http::Request<Body>| {
        let number = count.fetch_add(1, SeqCst);
        let handler = service_fn(move |name: tonic::Request<String>| async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, Status>(tonic::Response::new(format!("hello {}", name.into_inner())))
        });
        async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Text).unary(handler, request).await) }
    });
    let service = ServiceBuilder::new()
        .map_err(status_of_refusal)
        .layer(MetricsLayer::default())
        .layer(TraceLayer::call())
        .layer(TimeoutLayer::new(limit))
        .layer(box_errors())
        .service(greet);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().serve_with_incoming(service, TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (channel, calls)
}

/// tonic answers an error that is a status, and breaks the connection at any other.
fn status_of_refusal(error: BoxError) -> BoxError {
    match Rejection::find(&*error) {
        Some(Rejection::TimedOut { .. }) => Status::deadline_exceeded(error.to_string()).into(),
        Some(_) => Status::unavailable(error.to_string()).into(),
        None => error,
    }
}

async fn greet<S>(transport: S, name: String) -> Result<String, Status>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = BoxError>,
{
    let mut client = tonic::client::Grpc::new(transport);
    client.ready().await.map_err(Status::from_error)?;
    let path = http::uri::PathAndQuery::from_static("/greeter/greet");
    client.unary(tonic::Request::new(name), path, Text).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_grpc_call_is_limited_at_its_channel_and_repeated_as_a_message() {
    let (channel, calls) = greeter(Duration::from_secs(30)).await;
    // Around the channel the layers see HTTP requests, whose bodies can be sent only once.
    let transport = ServiceBuilder::new()
        .layer(MetricsLayer::builder().named("attempts").build().unwrap())
        .layer(TraceLayer::attempt())
        .layer(TimeoutLayer::new(Duration::from_millis(200)))
        .layer(box_errors())
        .service(channel);
    // Around the client they see messages, which can be repeated.
    let classifier = classify_fn(|outcome: Result<&String, &BoxError>| {
        let status = outcome.err().and_then(|error| error.downcast_ref::<Status>());
        match status.map(Status::code) {
            Some(Code::Unavailable) => Class::new(Fault::Overload, Effect::NotApplied),
            // The refusals of the layers around the channel are found in the status.
            _ => ByError.classify(outcome),
        }
    });
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(30)))
        .layer(RetryLayer::builder().backoff(Backoff::NONE).classifier(classifier).build().unwrap())
        .service(service_fn(move |name: Envelope<String>| {
            let call = greet(transport.clone(), name.into_inner());
            async move { call.await.map_err(BoxError::from) }
        }));
    let request = Envelope::new("Ada".to_owned()).idempotence(Idempotence::Yes);
    assert_eq!(client.oneshot(request).await.unwrap(), "hello Ada");
    assert_eq!(calls.load(SeqCst), 2);
}

#[tokio::test]
async fn what_a_grpc_servers_layers_refuse_reaches_the_client_as_a_status() {
    let (channel, _) = greeter(Duration::from_millis(20)).await;
    let transport = ServiceBuilder::new().layer(box_errors()).service(channel);
    let status = greet(transport.clone(), "Ada".to_owned()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "the attempt timed out after 20ms");
    assert_eq!(greet(transport, "Ada".to_owned()).await.unwrap(), "hello Ada", "the connection lives on");
}
