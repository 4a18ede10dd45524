//! Preparation, attempts and frames, seen from between the client and the server.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use palisade::{Backoff, DeadlineLayer, Idempotence, Repeat, RetryLayer, TimeoutLayer, TimeoutScope};
use scylla::client::session_builder::SessionBuilder;
use scylla_proxy::{Condition, Reaction, RequestOpcode, RequestReaction, RequestRule};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_cassandra::{Batch, Cassandra, Client, Error, ErrorKind, Kind, Request, Statement, Timeouts};

use crate::proxy::Proxied;

const LIMIT: Duration = Duration::from_millis(400);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_cause_one_preparation() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("flight").await;
    let mut prepares = proxied.watch(RequestOpcode::Prepare);
    let select = "SELECT v FROM flight WHERE k = ? /* once */";
    let calls: Vec<_> = (0..1_000)
        .map(|k| {
            let client = client.clone();
            tokio::spawn(async move { client.execute(select, (k,)).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(prepares.with_text("/* once */"), 1);
}

#[tokio::test]
async fn only_as_many_statements_are_kept_as_allowed() {
    let Some(mut proxied) = Proxied::start().await else { return };
    proxied.client_with_table("bounded").await;
    let client = Client::new(proxied.settings().prepared_statements(4).connect().await.unwrap());
    let text = |n: usize| format!("SELECT v FROM bounded WHERE k = ? /* kept {n} */");
    for n in 0..12 {
        client.execute(text(n), (1,)).await.unwrap();
    }
    let mut prepares = proxied.watch(RequestOpcode::Prepare);
    for n in 0..12 {
        client.execute(text(n), (1,)).await.unwrap();
    }
    let anew = prepares.with_text("/* kept ");
    assert!((8..=12).contains(&anew), "{anew} of 12 were prepared anew with room for 4");
}

#[tokio::test]
async fn a_preparation_that_hangs_is_bounded_by_the_deadline_and_holds_nobody_up_afterwards() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("hung").await;
    let stack = ServiceBuilder::new().layer(DeadlineLayer::new(LIMIT)).service(client.stack().clone());
    let bounded = Client::new(stack);
    let select = "SELECT v FROM hung WHERE k = ?";

    let _swallowed = proxied.swallow(RequestOpcode::Prepare);
    for attempt in 0..2 {
        let began = Instant::now();
        let error = bounded.execute(select, (1,)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Total), "{error}");
        assert!((LIMIT..LIMIT + SLACK).contains(&began.elapsed()), "{attempt}: {:?}", began.elapsed());
        assert!(
            error.to_string().contains(&format!("{} (prepare) abandoned after", proxied.address())),
            "{error}"
        );
        assert!(!error.is_overload());
    }
    // The preparation of before still hangs; a new caller does not wait for it.
    proxied.clear();
    let began = Instant::now();
    bounded.execute(select, (1,)).await.unwrap();
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}

/// Whatever the server does not answer, the caller has an answer in time, with a deadline, with an attempt timeout,
/// and with nothing but the session's own limit.
#[tokio::test]
async fn no_operation_outlasts_its_limit_when_its_frame_is_lost() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("lost").await;
    client.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.unwrap();
    client.execute("INSERT INTO lost (k, v) VALUES (?, ?)", (1, 1)).await.unwrap();
    let session = client.stack().session().clone();

    let deadline = Client::new(DeadlineLayer::new(LIMIT).layer(Cassandra::from_session(session.clone())));
    let attempt = Client::new(TimeoutLayer::new(LIMIT).layer(Cassandra::from_session(session.clone())));
    let limited = Client::new(
        proxied.settings().request_timeout(LIMIT).prepare_timeout(LIMIT).connect().await.unwrap(),
    );
    limited.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.unwrap();
    limited.execute("INSERT INTO lost (k, v) VALUES (?, ?)", (1, 1)).await.unwrap();
    deadline.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.unwrap();
    attempt.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.unwrap();

    for opcode in [RequestOpcode::Query, RequestOpcode::Prepare, RequestOpcode::Execute, RequestOpcode::Batch]
    {
        let mut lost = proxied.swallow(opcode);
        each_ends_in_time(&deadline.clone().boxed(), opcode).await;
        each_ends_in_time(&attempt.clone().boxed(), opcode).await;
        each_ends_in_time(&limited.clone().boxed(), opcode).await;
        assert!(lost.bodies().len() >= 3, "{opcode:?}");
        proxied.clear();
        // The session is as good as before.
        limited.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.unwrap();
    }
}

/// A deadline that no layer watches is watched by the leaf.
#[tokio::test]
async fn a_timeout_of_a_statements_own_holds_with_and_without_layers() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("own_timeout").await;
    let select = "SELECT v FROM own_timeout WHERE k = ?";
    let long = Timeouts::total(Duration::from_secs(60));
    let layered = Client::new(DeadlineLayer::new(long).layer(client.stack().clone())).boxed();
    client.execute(select, (1,)).await.unwrap();
    layered.execute(select, (1,)).await.unwrap();

    let _lost = proxied.swallow(RequestOpcode::Execute);
    for client in [client.clone().boxed(), layered] {
        let began = Instant::now();
        let error = client.execute(Statement::new(select).timeout(LIMIT), (1,)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Total), "{error}");
        assert!((LIMIT..LIMIT + SLACK).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    // A deadline that a request brings, one that it is made with, and one that somebody in the stack brings forward
    // after a layer has taken to watching another.
    let mut lost = proxied.swallow(RequestOpcode::Query);
    let request = || Request::text("SELECT v FROM own_timeout");
    let soon = |mut request: Request| {
        palisade::HasDeadline::shorten_deadline(&mut request, palisade::Instant::now() + LIMIT);
        request
    };
    let impatient = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(60)))
        .map_request(soon)
        .service(client.stack().clone());
    for outcome in [
        timed(client.stack().clone().oneshot(soon(request()))).await,
        timed(client.stack().clone().oneshot(request().with_timeout(LIMIT))).await,
        timed(impatient.oneshot(request())).await,
    ] {
        let (error, took) = outcome;
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Total), "{error}");
        assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    }

    // What is too late already is not sent.
    assert_eq!(lost.bodies().len(), 3);
    let late = request().with_timeout(Duration::ZERO);
    let error = client.stack().clone().oneshot(late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Total), "{error}");
    assert_eq!(lost.bodies().len(), 0);
}

async fn timed<T>(call: impl Future<Output = Result<T, Error>>) -> (Error, Duration) {
    let began = Instant::now();
    let Err(error) = call.await else { panic!("a lost frame was answered") };
    (error, began.elapsed())
}

/// The session's limit is for calls that have none: who gives a call more time than that means it.
#[tokio::test]
async fn a_call_that_is_given_more_time_than_the_sessions_limit_has_it() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("patient").await;
    let limited = Client::new(proxied.settings().request_timeout(LIMIT).connect().await.unwrap());
    let select = "SELECT v FROM patient WHERE k = ?";
    limited.execute(select, (1,)).await.unwrap();
    let stack = DeadlineLayer::new(LIMIT * 10).layer(limited.stack().clone());
    let patient = Client::new(stack);
    patient.execute(select, (1,)).await.unwrap();
    drop(client);

    let execute = Condition::RequestOpcode(RequestOpcode::Execute);
    let _slow = proxied.react(execute, RequestReaction::delay(LIMIT * 2));
    assert!(limited.execute(select, (1,)).await.unwrap_err().is_timeout());
    limited.execute(Statement::new(select).timeout(LIMIT * 10), (1,)).await.unwrap();
    patient.execute(select, (1,)).await.unwrap();
}

async fn each_ends_in_time(client: &tower_cassandra::BoxClient, opcode: RequestOpcode) {
    let began = Instant::now();
    let outcome = match opcode {
        RequestOpcode::Query => client.query("SELECT v FROM lost").await.map(drop),
        RequestOpcode::Prepare => {
            let fresh = format!("SELECT v FROM lost WHERE k = ? /* {began:?} */");
            client.prepare(&fresh).await.map(drop)
        }
        RequestOpcode::Execute => client.execute("SELECT v FROM lost WHERE k = ?", (1,)).await.map(drop),
        _ => {
            let insert = "INSERT INTO lost (k, v) VALUES (?, ?)";
            client.batch(Batch::unlogged().with(insert, (1, 1)).with(insert, (2, 2))).await.map(drop)
        }
    };
    let error = outcome.unwrap_err();
    assert!(error.is_timeout(), "{opcode:?}: {error}");
    assert!(began.elapsed() < LIMIT + SLACK, "{opcode:?}: {:?}", began.elapsed());
    assert!(!error.attempts().unwrap().is_empty(), "{opcode:?}: {error}");
}

/// Of a request that passed: what it does, whether it counts, and its deadline.
type Step = (Kind, bool, Option<palisade::Instant>);

#[tokio::test]
async fn a_preparation_passes_the_stack_under_one_deadline_and_is_counted_once() {
    let Some(proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("passes").await;
    let seen: Arc<Mutex<Vec<Step>>> = Arc::default();
    let record = Arc::clone(&seen);
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(5))))
        .map_request(move |request: Request| {
            let deadline = palisade::HasDeadline::deadline(&request);
            record.lock().unwrap().push((request.kind(), request.counts(), deadline));
            request
        })
        .service(client.stack().clone());
    let client = Client::new(stack);
    let select = Statement::new("SELECT v FROM passes WHERE k > ? ALLOW FILTERING").page_size(1);
    for k in 0..3 {
        client.execute("INSERT INTO passes (k, v) VALUES (?, 0)", (k,)).await.unwrap();
    }
    seen.lock().unwrap().clear();
    assert_eq!(client.execute(select.clone(), (-1,)).await.unwrap().rows_num(), 3);

    let steps = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(steps[0].0, Kind::Prepare);
    assert!(steps[1..].iter().all(|step| step.0 == Kind::Read));
    assert!(steps.len() >= 4, "a preparation and three pages: {steps:?}");
    assert_eq!(steps.iter().filter(|step| step.1).count(), 1, "counted once: {steps:?}");
    assert!(steps.iter().all(|step| step.2 == steps[0].2 && step.2.is_some()), "one deadline: {steps:?}");

    client.execute(select, (-1,)).await.unwrap();
    let steps = std::mem::take(&mut *seen.lock().unwrap());
    assert!(steps.iter().all(|step| step.0 == Kind::Read), "prepared once: {steps:?}");
    assert_eq!(steps.iter().filter(|step| step.1).count(), 1);
}

fn overloaded(times: usize) -> (Condition, RequestReaction) {
    let first = Condition::TrueForLimitedTimes(times);
    (
        Condition::and(Condition::RequestOpcode(RequestOpcode::Execute), first),
        RequestReaction::forge().overloaded(),
    )
}

fn retrying(
    client: &Client<Cassandra>,
) -> Client<
    impl tower::Service<
        Request,
        Response = tower_cassandra::Response,
        Error = Error,
        Future = impl Future<Output = Result<tower_cassandra::Response, Error>> + Send,
    > + Clone,
> {
    let retry = RetryLayer::builder().backoff(Backoff::NONE).build().unwrap();
    Client::new(ServiceBuilder::new().layer(retry).service(client.stack().clone()))
}

/// A server that pages does more work; a result that has one row at most needs no pages.
#[tokio::test]
async fn only_what_may_have_many_rows_is_paged() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("paged").await;
    crate::cluster::create_table(&client, "clustered", "k int, c int, PRIMARY KEY (k, c)").await;
    let pages = async |text: &str, proxied: &mut Proxied| {
        let values = vec![1; text.matches('?').count()];
        client.execute(text, &values).await.unwrap();
        let mut frames = proxied.watch(RequestOpcode::Execute);
        client.execute(text, &values).await.unwrap();
        let frame = frames.bodies().remove(0);
        proxied.clear();
        // The statement's id with its length, the consistency level, and then the flags.
        let flags = frame[2 + usize::from(u16::from_be_bytes([frame[0], frame[1]])) + 2];
        flags & 0x04 != 0
    };
    assert!(!pages("SELECT v FROM paged WHERE k = ?", &mut proxied).await);
    for text in [
        "SELECT v FROM paged",
        "SELECT v FROM paged WHERE k IN (?, ?)",
        "SELECT v FROM paged WHERE k > ? ALLOW FILTERING",
        "SELECT v FROM paged WHERE token(k) > token(?)",
        "SELECT c FROM clustered WHERE k = ?",
        "SELECT c FROM clustered WHERE k = ? AND c = ?",
    ] {
        assert!(pages(text, &mut proxied).await, "{text}");
    }
}

/// All attempts of a write are the same to the byte: its values are serialized once, and its timestamp is pinned.
#[tokio::test]
async fn every_attempt_of_a_write_is_the_same_frame() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("same").await;
    let insert = "INSERT INTO same (k, v) VALUES (?, ?)";
    client.execute(insert, (0, 0)).await.unwrap();
    let retrying = retrying(&client);
    retrying.execute(insert, (0, 0)).await.unwrap();

    let (condition, overloaded) = overloaded(2);
    let (sender, mut forged) = tokio::sync::mpsc::unbounded_channel();
    let (other, mut passed) = tokio::sync::mpsc::unbounded_channel();
    proxied.rules(vec![
        RequestRule(condition, overloaded.with_feedback_when_performed(sender)),
        RequestRule(
            Condition::RequestOpcode(RequestOpcode::Execute),
            RequestReaction::noop().with_feedback_when_performed(other),
        ),
    ]);
    retrying.execute(insert, (1, 1)).await.unwrap();
    let frames: Vec<_> = [forged.recv().await, forged.recv().await, passed.recv().await]
        .map(|frame| frame.unwrap().0.body)
        .into();
    assert_eq!(frames[0], frames[1]);
    assert_eq!(frames[1], frames[2]);

    // A timestamp is in them: without one a frame is eight bytes shorter.
    let unstamped = retrying.client_timestamps(false);
    unstamped.execute(insert, (1, 1)).await.unwrap();
    assert_eq!(passed.recv().await.unwrap().0.body.len() + 8, frames[2].len());
}

#[tokio::test]
async fn an_ambiguous_failure_of_what_is_not_idempotent_is_sent_once() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("once").await;
    let retrying = retrying(&client);
    let transaction = "UPDATE once SET v = ? WHERE k = ? IF v = 3";
    retrying.execute(transaction, (1, 1)).await.unwrap();

    let (_, overloaded) = overloaded(1);
    let mut sent = proxied.react(Condition::RequestOpcode(RequestOpcode::Execute), overloaded);
    let error = retrying.execute(transaction, (1, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.may_have_been_applied() && error.is_overload());
    assert_eq!(sent.bodies().len(), 1);

    // An idempotent one is sent as often as allowed, and the error tells of each attempt.
    let error = retrying.execute("SELECT v FROM once WHERE k = ?", (1,)).await;
    let Err(error) = error else { panic!("an answer was forged") };
    let attempts = error.attempts().unwrap().attempts();
    let kinds: Vec<_> = attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [Kind::Prepare, Kind::Read, Kind::Read, Kind::Read]);
    assert!(attempts[1..].iter().all(|attempt| attempt.node == Some(proxied.address())));
    assert_eq!(error.to_string().matches("overloaded after").count(), 3, "{error}");
}

/// Not even a session whose profile retries and speculates makes an attempt of its own.
#[tokio::test]
async fn the_driver_makes_no_attempts_of_its_own_in_a_session_of_the_callers() {
    use scylla::{
        client::execution_profile::ExecutionProfile,
        policies::{retry::DefaultRetryPolicy, speculative_execution::SimpleSpeculativeExecutionPolicy},
    };
    let Some(mut proxied) = Proxied::start().await else { return };
    proxied.client_with_table("own").await;
    let profile = ExecutionProfile::builder()
        .retry_policy(Arc::new(DefaultRetryPolicy::new()))
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: 3,
            retry_interval: Duration::from_millis(10),
        })))
        .request_timeout(Some(Duration::from_millis(50)))
        .build();
    let session = SessionBuilder::new()
        .known_node(proxied.address().to_string())
        .address_translator(Arc::new(proxied.translation()))
        .use_keyspace(crate::cluster::KEYSPACE, false)
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await
        .unwrap();
    let client = Client::new(Cassandra::from_session(session));
    let select = Statement::new("SELECT v FROM own WHERE k = ?").idempotent(true);
    client.execute(select.clone(), (1,)).await.unwrap();

    let execute = || Condition::RequestOpcode(RequestOpcode::Execute);
    let mut slow = proxied.react(execute(), RequestReaction::delay(Duration::from_millis(200)));
    client.execute(select.clone(), (1,)).await.unwrap();
    assert_eq!(slow.bodies().len(), 1, "speculative execution, or a request timeout");
    let mut failed = proxied.react(execute(), RequestReaction::forge().overloaded());
    client.execute(select, (1,)).await.unwrap_err();
    assert_eq!(failed.bodies().len(), 1, "a retry");
}

/// Nor does a session of our making whose driver the caller has given a limit on time.
#[tokio::test]
async fn a_limit_on_time_among_the_drivers_settings_has_no_effect() {
    let Some(mut proxied) = Proxied::start().await else { return };
    proxied.client_with_table("settings").await;
    let translation = proxied.translation();
    let settings = proxied.settings().driver(move |session| {
        let profile = scylla::client::execution_profile::ExecutionProfile::builder();
        let hasty = profile.request_timeout(Some(Duration::from_millis(50))).build();
        session
            .address_translator(Arc::new(translation.clone()))
            .default_execution_profile_handle(hasty.into_handle())
    });
    let client = Client::new(settings.connect().await.unwrap());
    let select = "SELECT v FROM settings WHERE k = ?";
    client.execute(select, (1,)).await.unwrap();
    let execute = Condition::RequestOpcode(RequestOpcode::Execute);
    let _slow = proxied.react(execute, RequestReaction::delay(Duration::from_millis(200)));
    client.execute(select, (1,)).await.unwrap();
}

/// A request whose attempt is abandoned says so in its ledger, and no task of it lives on.
#[tokio::test]
async fn a_dropped_call_leaves_nothing_behind() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("dropped").await;
    let select = "SELECT v FROM dropped WHERE k = ?";
    client.execute(select, (1,)).await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let session = client.stack().session().clone();
    let (before, references) = (tasks(), Arc::strong_count(&session));

    let mut lost = proxied.swallow(RequestOpcode::Execute);
    for _ in 0..200 {
        let call = client.execute(select, (1,));
        assert!(tokio::time::timeout(Duration::from_millis(2), call).await.is_err());
    }
    assert_eq!(lost.bodies().len(), 200);
    assert_eq!(Arc::strong_count(&session), references);
    assert_eq!(tasks(), before);

    let request = Request::text("SELECT v FROM dropped").with_idempotence(Idempotence::Yes);
    let ledger = Arc::clone(request.ledger());
    let _lost = proxied.swallow(RequestOpcode::Query);
    let call = client.stack().clone().oneshot(request);
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    let text = ledger.to_string();
    assert!(text.starts_with(&format!("{} abandoned after", proxied.address())), "{text}");
    proxied.clear();
    client.execute(select, (1,)).await.unwrap();
}
