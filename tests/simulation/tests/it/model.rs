//! Whether the simulation does what it says.

use overload_simulation::{
    engine::{Engine, Job, Mode, Settings},
    plot,
    run::Size,
    scenarios::{ALL, five_times, retry_storm},
    speed::{Nanos, Speed, nanos},
    table,
};

/// Sends calls at a constant rate for ten seconds, and tells how many were answered, refused and failed.
fn offer(settings: Settings, rate: f64) -> [u32; 3] {
    let mut server = Engine::new(settings, 7);
    let mut counts = [0; 3];
    let mut answer = |(), outcome: Result<(), _>| match outcome {
        Ok(()) => counts[0] += 1,
        Err(overload_simulation::call::Error::Overloaded) => counts[1] += 1,
        Err(_) => counts[2] += 1,
    };
    let mut time = 0.0;
    while time < 10.0 {
        server.arrive(nanos(time), Job { key: 1, deadline: None, reply: () }, &mut answer);
        time += 1.0 / rate;
    }
    server.run_until(nanos(10.0), &mut answer);
    counts
}

#[test]
fn a_server_answers_what_it_can_and_refuses_the_rest() {
    let settings = Settings { refusal: 0.0, ..Settings::of(10) };
    assert!((settings.capacity() - 500.0).abs() < 1e-9);
    let [answered, refused, failed] = offer(settings.clone(), 300.0);
    assert!((2_950..=3_000).contains(&answered) && refused == 0 && failed == 0, "{answered} {refused}");
    let [answered, refused, _] = offer(settings, 1_000.0);
    assert!((4_850..=5_150).contains(&answered), "{answered}");
    assert!((3_800..=4_150).contains(&refused), "{refused}");
}

#[test]
fn to_refuse_costs_work() {
    let [answered, ..] = offer(Settings::of(10), 2_500.0);
    // 2,000 refusals a second, each for a twentieth of an answer: they take a fifth of it, and what they take adds to them.
    assert!((3_700..=4_200).contains(&answered), "{answered}");
}

#[test]
fn readers_of_one_key_wait_for_each_other_and_hold_a_worker_meanwhile() {
    let [answered, ..] = offer(Settings { serial_keys: true, refusal: 0.0, ..Settings::of(10) }, 300.0);
    assert!((450..=550).contains(&answered), "{answered}");
}

#[test]
fn a_server_that_skips_what_has_expired_does_no_work_for_it() {
    let settings = Settings { skips_expired: true, spread: 0.0, ..Settings::of(1) };
    let mut server = Engine::new(settings, 7);
    let mut answered: Vec<u32> = Vec::new();
    for number in 0..10 {
        let job = Job { key: number, deadline: Some(nanos(0.05)), reply: number };
        server.arrive(0, job, &mut |reply, _| answered.push(reply));
    }
    server.run_until(nanos(10.0), &mut |reply, _| answered.push(reply));
    assert_eq!(answered, [0, 1, 2]);
    assert_eq!(server.next_end(), None);
}

#[test]
fn a_server_that_hangs_answers_nothing_and_one_that_stands_still_answers_later() {
    let hangs = Settings { modes: vec![(0.0, Mode::Hanging)], ..Settings::of(1) };
    assert_eq!(offer(hangs, 10.0), [0, 0, 0]);
    let stalls = Settings { speed: Speed::default().then(0.0, 0.0).then(9.0, 1.0), ..Settings::of(1) };
    let [answered, ..] = offer(stalls, 10.0);
    assert!((40..=60).contains(&answered), "{answered}");
    assert_eq!(Speed::default().then(1.0, 0.0).done(nanos(1.0), 5), Nanos::MAX);
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_seed_others() {
    let scenario = retry_storm::SCENARIO;
    for variant in [scenario.with, scenario.without] {
        let first = scenario.run(variant, Size::Small, 3);
        let other = scenario.run(variant, Size::Small, 4);
        let again = scenario.run(variant, Size::Small, 3);
        assert!(first == again, "{} differs between runs", variant.name);
        assert!(first != other, "{} does not depend on the seed", variant.name);
        assert_eq!(table::row(&scenario, "", &first), table::row(&scenario, "", &again));
    }
}

#[test]
fn a_plot_can_stand_in_documentation() {
    let scenario = five_times::SCENARIO;
    let report = scenario.run(scenario.with, Size::Small, 1);
    let svg = plot::draw(&scenario, &report, &report);
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
    assert!(svg.lines().all(|line| !line.trim().is_empty()));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn every_scenario_has_a_name_of_its_own_and_time_to_recover() {
    for (index, scenario) in ALL.iter().enumerate() {
        assert!(ALL[..index].iter().all(|other| other.name != scenario.name));
        assert!(scenario.seconds >= scenario.trouble.1 + 15.0, "{}", scenario.name);
    }
}
