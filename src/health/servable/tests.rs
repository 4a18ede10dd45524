#![expect(clippy::float_cmp, reason = "what is expected is exact")]

use Consistency::{
    All, Any, EachQuorum, LocalOne, LocalQuorum, LocalSerial, One, Quorum, Serial, Three, Two,
};

use proptest::prelude::*;

use super::*;

const LEVELS: [Consistency; 11] =
    [Any, One, Two, Three, Quorum, All, LocalOne, LocalQuorum, EachQuorum, Serial, LocalSerial];

/// Nodes by datacenter, `u` for one that is up and `d` for one that is down: `"uud uuu"`.
fn members(picture: &str) -> Vec<Member> {
    let datacenters = picture.split(' ').enumerate();
    datacenters
        .flat_map(|(datacenter, nodes)| {
            nodes.chars().map(move |node| Member { datacenter, up: node == 'u', coordinates: node == 'u' })
        })
        .collect()
}

/// Sets of nodes, of equal width.
fn ring(factors: Factors, members: &[Member], sets: &[&[usize]]) -> Placement {
    let sets = sets.iter().map(|nodes| ReplicaSet {
        replicas: nodes
            .iter()
            .map(|node| Replica { node: *node, datacenter: members[*node].datacenter })
            .collect(),
        width: 1.0,
    });
    Placement::Ring(factors, sets.collect())
}

fn one_datacenter(factor: usize) -> Factors {
    Factors::ByDatacenter(vec![(0, factor)])
}

/// The levels that all of the ring can be served at.
fn served(placement: &Placement, members: &[Member], near: Option<usize>) -> Vec<Consistency> {
    let verdict = |level: &Consistency| judge(placement, members, *level, near);
    for level in LEVELS {
        let verdict = verdict(&level);
        assert_eq!(verdict.share == 1.0, verdict.obstacle.is_none(), "{level:?}: {verdict:?}");
    }
    LEVELS.into_iter().filter(|level| verdict(level).share == 1.0).collect()
}

#[test]
fn with_three_replicas_each_node_that_is_down_costs_the_levels_that_need_it() {
    let cases: [(&str, &[Consistency]); 4] = [
        ("uuu", &LEVELS),
        ("uud", &[Any, One, Two, Quorum, LocalOne, LocalQuorum, EachQuorum, Serial, LocalSerial]),
        ("udd", &[Any, One, LocalOne]),
        ("ddd", &[]),
    ];
    for (picture, levels) in cases {
        let members = members(picture);
        let placement = ring(one_datacenter(3), &members, &[&[0, 1, 2]]);
        assert_eq!(served(&placement, &members, Some(0)), levels, "{picture}");
        assert_eq!(served(&placement, &members, None), levels, "{picture}");
    }
}

#[test]
fn half_of_the_replicas_are_no_quorum() {
    for (picture, share) in [("uuud", 1.0), ("uudd", 0.0)] {
        let members = members(picture);
        let placement = ring(one_datacenter(4), &members, &[&[0, 1, 2, 3]]);
        for level in [Quorum, LocalQuorum, EachQuorum, Serial, LocalSerial] {
            assert_eq!(judge(&placement, &members, level, None).share, share, "{picture} {level:?}");
        }
    }
}

#[test]
fn a_single_replica_that_is_down_takes_its_ranges_with_it_and_no_others() {
    let members = members("uudu");
    let placement = ring(one_datacenter(1), &members, &[&[0], &[1], &[2], &[3]]);
    for level in [One, Quorum, All, LocalOne, LocalQuorum, EachQuorum, Serial, LocalSerial] {
        let verdict = judge(&placement, &members, level, None);
        assert_eq!(verdict.share, 0.75, "{level:?}");
        assert_eq!(verdict.datacenters.len(), 0, "{level:?}");
        let Some(Obstacle::TooFew(shortage)) = verdict.obstacle else { panic!("{level:?}") };
        assert_eq!((shortage.required, shortage.up, shortage.replicas), (1, 0, 1));
        assert_eq!(shortage.down, [2]);
    }
    assert_eq!(judge(&placement, &members, Any, None).share, 1.0);
    for level in [Two, Three] {
        assert_eq!(judge(&placement, &members, level, None).share, 0.0, "{level:?}");
    }
}

#[test]
fn a_wide_range_counts_for_more() {
    let members = members("ud");
    let set = |node, width| ReplicaSet { replicas: Box::new([Replica { node, datacenter: 0 }]), width };
    let placement = Placement::Ring(one_datacenter(1), vec![set(0, 3.0), set(1, 5.0)]);
    assert_eq!(judge(&placement, &members, One, None).share, 0.375);
}

/// A coordinator takes the quorum of what the keyspace asks for, even where there are fewer nodes.
#[test]
fn more_replicas_than_nodes_are_missed() {
    let members = members("uu");
    let placement = ring(one_datacenter(5), &members, &[&[0, 1]]);
    assert_eq!(served(&placement, &members, None), [Any, One, Two, LocalOne, Serial, LocalSerial]);
    let verdict = judge(&placement, &members, LocalQuorum, None);
    let shortage = Shortage { datacenter: Some(0), required: 3, up: 2, replicas: 2, down: vec![] };
    assert_eq!(verdict.obstacle, Some(Obstacle::TooFew(shortage)));
}

#[test]
fn local_levels_count_the_coordinators_datacenter_and_the_others_all() {
    // Three replicas in each of two datacenters.
    let factors = Factors::ByDatacenter(vec![(0, 3), (1, 3)]);
    let members = members("udd uuu");
    let placement = ring(factors, &members, &[&[0, 1, 2, 3, 4, 5]]);
    assert_eq!(served(&placement, &members, Some(0)), [Any, One, Two, Three, Quorum, LocalOne, Serial]);
    assert_eq!(
        served(&placement, &members, Some(1)),
        [Any, One, Two, Three, Quorum, LocalOne, LocalQuorum, Serial, LocalSerial]
    );
    let local = judge(&placement, &members, LocalQuorum, Some(0));
    assert_eq!((local.share, local.datacenters), (0.0, vec![1]), "the other one could");
    let shortage = Shortage { datacenter: Some(0), required: 2, up: 1, replicas: 3, down: vec![1, 2] };
    assert_eq!(local.obstacle, Some(Obstacle::TooFew(shortage.clone())));
    let each = judge(&placement, &members, EachQuorum, Some(1));
    assert_eq!((each.share, each.datacenters), (0.0, vec![]));
    assert_eq!(each.obstacle, Some(Obstacle::TooFew(shortage)), "whoever coordinates");
}

#[test]
fn without_a_local_datacenter_one_that_can_serve_is_enough() {
    let factors = Factors::ByDatacenter(vec![(0, 3), (1, 3)]);
    let members = members("udd uuu");
    let placement = ring(factors, &members, &[&[0, 1, 2, 3, 4, 5]]);
    let verdict = judge(&placement, &members, LocalQuorum, None);
    assert_eq!((verdict.share, verdict.datacenters, verdict.obstacle), (1.0, vec![1], None));
}

#[test]
fn a_local_datacenter_without_replicas_serves_no_local_level_and_says_why() {
    let members = members("uu uu");
    let placement = ring(Factors::ByDatacenter(vec![(1, 2)]), &members, &[&[2, 3]]);
    for level in [LocalOne, LocalQuorum, LocalSerial] {
        let verdict = judge(&placement, &members, level, Some(0));
        assert_eq!((verdict.share, verdict.datacenters), (0.0, vec![1]), "{level:?}");
        assert_eq!(verdict.obstacle, Some(Obstacle::NoReplicas { datacenter: 0 }), "{level:?}");
    }
    for level in [One, Quorum, All, EachQuorum] {
        assert_eq!(
            judge(&placement, &members, level, Some(0)).share,
            1.0,
            "{level:?}: they are asked from afar"
        );
    }
}

#[test]
fn a_request_needs_a_coordinator_where_it_may_go() {
    let factors = Factors::ByDatacenter(vec![(0, 1), (1, 1)]);
    let members = members("d u");
    let placement = ring(factors, &members, &[&[0, 1]]);
    for level in [Any, One, LocalOne] {
        let verdict = judge(&placement, &members, level, Some(0));
        assert_eq!((verdict.share, verdict.datacenters), (0.0, vec![1]), "{level:?}");
        assert_eq!(verdict.obstacle, Some(Obstacle::NoCoordinator { datacenter: Some(0) }), "{level:?}");
        assert_eq!(judge(&placement, &members, level, None).share, 1.0, "{level:?}");
    }
}

/// A filter keeps the driver from nodes that may be as well as any.
#[test]
fn a_replica_that_cannot_be_asked_directly_still_counts() {
    let mut members = members("u u");
    members[1].coordinates = false;
    let placement = ring(Factors::ByDatacenter(vec![(0, 1), (1, 1)]), &members, &[&[0, 1]]);
    let verdict = judge(&placement, &members, All, None);
    assert_eq!((verdict.share, verdict.datacenters), (1.0, vec![0]));
    assert_eq!(judge(&placement, &members, LocalOne, Some(1)).share, 0.0);
}

/// Without factors by datacenter, a local quorum is the quorum of all, of which those nearby are counted.
#[test]
fn replicas_that_the_ring_puts_anywhere_are_counted_as_a_coordinator_does() {
    let members = members("uu uu");
    let placement = ring(Factors::Anywhere(3), &members, &[&[0, 1, 2], &[1, 2, 3]]);
    let local = judge(&placement, &members, LocalQuorum, Some(0));
    assert_eq!((local.share, local.datacenters), (0.5, vec![]));
    let shortage = Shortage { datacenter: Some(0), required: 2, up: 1, replicas: 1, down: vec![] };
    assert_eq!(local.obstacle, Some(Obstacle::TooFew(shortage)));
    assert_eq!(judge(&placement, &members, LocalQuorum, None).share, 1.0, "each range has a place for it");
    assert_eq!(judge(&placement, &members, EachQuorum, Some(0)).share, 1.0, "it means all of them");
}

#[test]
fn where_only_numbers_are_known_the_share_is_how_likely_a_range_can_be_served() {
    let members = members("uuuudd");
    let placement = Placement::Numbers(one_datacenter(3));
    // Of 20 ways to choose three of six nodes, 4 have both that are down.
    assert_eq!(judge(&placement, &members, Quorum, None).share, 0.8);
    assert_eq!(judge(&placement, &members, One, None).share, 1.0);
    // And 4 have neither.
    assert_eq!(judge(&placement, &members, All, None).share, 0.2);
}

#[test]
fn numbers_of_several_datacenters_are_put_together() {
    let placement = Placement::Numbers(Factors::ByDatacenter(vec![(0, 1), (1, 1)]));
    let members = members("ud uuud");
    assert_eq!(judge(&placement, &members, One, None).share, 0.875);
    assert_eq!(judge(&placement, &members, All, None).share, 0.375);
    assert_eq!(judge(&placement, &members, LocalOne, Some(1)).share, 0.75);
    assert_eq!(judge(&Placement::Numbers(Factors::Anywhere(6)), &members, Quorum, None).share, 1.0);
}

#[test]
fn nodes_that_are_down_in_many_datacenters_make_no_more_sets_than_can_be_looked_at() {
    let of = |picture: &str, count: usize| members(&vec![picture; count].join(" "));
    let threes = |count: usize| Factors::ByDatacenter((0..count).map(|datacenter| (datacenter, 3)).collect());
    for count in [5, 6, 9] {
        let (members, factors) = (of("uuuddd", count), threes(count));
        for near in [None, Some(0), Some(count - 1)] {
            let sets = likely_sets(&factors, &members, near);
            assert!(sets.len() <= 1_024, "{} of {count}", sets.len());
            let all: f64 = sets.iter().map(|set| set.width).sum();
            assert!((all / 20_f64.powi(i32::try_from(count).unwrap()) - 1.0).abs() < 1e-9);
        }
        let placement = Placement::Numbers(factors);
        // Half of the ways to choose three of six have two of those that are up, whatever the other datacenters have.
        for near in 0..count {
            let share = judge(&placement, &members, LocalQuorum, Some(near)).share;
            assert!((share - 0.5).abs() < 1e-9, "{share} in {near} of {count}");
        }
        let verdict = judge(&placement, &members, Quorum, Some(0));
        assert!(verdict.share > 0.0 && verdict.share <= 0.5 + 1e-9, "{verdict:?}");
        // All and nothing are told exactly.
        let well = of("uuuud", count);
        assert_eq!(judge(&placement, &well, EachQuorum, Some(0)).share, 1.0);
        assert_eq!(judge(&placement, &well, Quorum, None).datacenters.len(), count);
        let sick = of("udddd", count);
        for level in [Quorum, EachQuorum, LocalQuorum] {
            assert_eq!(judge(&placement, &sick, level, None).share, 0.0, "{level:?}");
        }
    }
}

#[test]
fn what_each_node_has_is_served_as_long_as_one_is_up() {
    for level in LEVELS {
        let verdict = judge(&Placement::Everywhere, &members("ddu"), level, None);
        assert_eq!((verdict.share, verdict.datacenters), (1.0, vec![0]), "{level:?}");
        let verdict = judge(&Placement::Everywhere, &members("ddd"), level, None);
        assert_eq!(verdict.share, 0.0, "{level:?}");
        assert_eq!(verdict.obstacle, Some(Obstacle::NoCoordinator { datacenter: None }), "{level:?}");
    }
}

#[test]
fn a_cluster_without_nodes_or_ranges_panics_nowhere() {
    for level in LEVELS {
        for near in [None, Some(0), Some(7)] {
            for placement in [
                Placement::Everywhere,
                Placement::Numbers(one_datacenter(3)),
                Placement::Numbers(Factors::Anywhere(3)),
                Placement::Ring(one_datacenter(3), vec![]),
            ] {
                let verdict = judge(&placement, &[], level, near);
                assert_eq!(verdict.share, 0.0, "{level:?} {placement:?}");
            }
        }
    }
}

/// All ways to choose so many of these.
fn choices(of: &[usize], chosen: usize) -> Vec<Vec<usize>> {
    let Some((first, rest)) = of.split_first() else {
        return if chosen == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    let mut all = choices(rest, chosen);
    if let Some(fewer) = chosen.checked_sub(1) {
        all.extend(choices(rest, fewer).into_iter().map(|rest| [&[*first], &rest[..]].concat()));
    }
    all
}

proptest! {
    #[test]
    fn numbers_tell_the_same_as_all_places_that_there_are(
        up in prop::collection::vec(any::<bool>(), 1..8),
        factor in 1_usize..5,
    ) {
        let members: Vec<_> =
            up.iter().map(|up| Member { datacenter: 0, up: *up, coordinates: true }).collect();
        let nodes: Vec<_> = (0..members.len()).collect();
        let sets = choices(&nodes, factor.min(nodes.len()));
        let sets: Vec<_> = sets.iter().map(Vec::as_slice).collect();
        let placed = ring(one_datacenter(factor), &members, &sets);
        let counted = Placement::Numbers(one_datacenter(factor));
        for level in LEVELS {
            let [placed, counted] = [&placed, &counted].map(|at| judge(at, &members, level, Some(0)));
            prop_assert!((placed.share - counted.share).abs() < 1e-9, "{level:?}: {placed:?} {counted:?}");
            prop_assert_eq!(placed.obstacle.is_none(), counted.obstacle.is_none());
        }
    }

    #[test]
    fn a_node_more_takes_nothing_away_and_a_level_that_needs_more_is_served_less(
        up in prop::collection::vec(any::<bool>(), 6),
        sets in prop::collection::vec(prop::sample::subsequence(vec![0_usize, 1, 2, 3, 4, 5], 0..6), 1..6),
        back in 0_usize..6,
        near in prop::option::of(0_usize..3),
    ) {
        let mut members: Vec<_> = (0..6)
            .map(|node| Member { datacenter: node / 2, up: up[node], coordinates: up[node] })
            .collect();
        let sets: Vec<_> = sets.iter().map(Vec::as_slice).collect();
        let factors = Factors::ByDatacenter(vec![(0, 2), (1, 2), (2, 2)]);
        let placement = ring(factors, &members, &sets);
        let shares = |members: &[Member]| LEVELS.map(|level| judge(&placement, members, level, near).share);
        let before = shares(&members);
        for (more, less) in
            [(Any, One), (One, Two), (Two, Three), (Quorum, All), (EachQuorum, All), (LocalOne, LocalQuorum)]
        {
            let share = |level| before[LEVELS.iter().position(|one| *one == level).unwrap()];
            prop_assert!(share(more) >= share(less), "{more:?} {less:?}");
        }
        (members[back].up, members[back].coordinates) = (true, true);
        for (level, (before, after)) in LEVELS.iter().zip(before.into_iter().zip(shares(&members))) {
            prop_assert!(after >= before, "{level:?}: {before} to {after}");
        }
    }
}
