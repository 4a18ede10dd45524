use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{
    Backoff, DeadlineLayer, RetryLayer, TimeoutLayer,
    testkit::{AMBIGUOUS, CALLER, Leaf, Step, idempotent},
};
use tower::{Layer, ServiceBuilder, ServiceExt};

/// The handles of a layer that was built before the recorder was installed work all the same.
#[test]
fn refusals_and_repeats_are_counted_at_a_recorder_that_comes_late() {
    let retry = RetryLayer::builder().backoff(Backoff::NONE).named("reads").build().unwrap();
    let deadline = DeadlineLayer::new(Duration::from_millis(50)).named("edge");
    let timeout = TimeoutLayer::new(Duration::from_millis(10));
    let stack = |script: &[Step]| {
        let leaf = Leaf::new(script.to_vec());
        ServiceBuilder::new().layer(deadline).layer(retry.clone()).layer(timeout).service(leaf)
    };

    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let send = async |script: &[Step]| stack(script).oneshot(idempotent(7)).await.is_ok();
            assert!(send(&[Step::Fail(AMBIGUOUS), Step::Hang, Step::Answer]).await);
            assert!(!send(&[Step::Fail(CALLER)]).await);
            assert!(!send(&[Step::Fail(AMBIGUOUS)]).await);
            let hung = deadline.layer(Leaf::new([Step::Hang]));
            assert!(hung.oneshot(idempotent(7)).await.is_err());
        });
    });

    let counts = recorder.snapshotter().snapshot().into_vec();
    let count = |name: &str, labels: &[(&str, &str)]| {
        let is_it = |key: &metrics::Key| {
            key.name() == name
                && labels.iter().all(|(k, v)| key.labels().any(|l| l.key() == *k && l.value() == *v))
        };
        counts.iter().find_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) if is_it(key.key()) => Some(*count),
            _ => None,
        })
    };
    assert_eq!(count("palisade_retries_total", &[("layer", "reads")]), Some(4));
    let stopped = |reason| count("palisade_retries_stopped_total", &[("layer", "reads"), ("reason", reason)]);
    assert_eq!(stopped("not_allowed"), Some(1));
    assert_eq!(stopped("attempts"), Some(1));
    assert_eq!(stopped("budget"), None);
    assert_eq!(count("palisade_timeouts_total", &[("layer", "timeout"), ("scope", "attempt")]), Some(1));
    assert_eq!(count("palisade_timeouts_total", &[("layer", "edge"), ("scope", "total")]), Some(1));
}
