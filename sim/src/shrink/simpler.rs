//! Configurations that are simpler than another one.

use neorunbase_fault_injection::ScheduledFault;

use crate::configuration::Configuration;
use crate::faulty_nodes::nodes_of;

/// `configuration` with these faults alone.
pub fn with_faults(configuration: &Configuration, faults: Vec<ScheduledFault>) -> Configuration {
    let mut simpler = configuration.clone();
    simpler.plan.faults = faults;
    simpler
}

/// `configuration` with these workloads alone.
pub fn with_workloads(configuration: &Configuration, workloads: Vec<String>) -> Configuration {
    Configuration {
        workloads,
        ..configuration.clone()
    }
}

/// Shorter runs, the shortest first.
pub fn shorter(configuration: &Configuration) -> Vec<Configuration> {
    let length_ms = configuration.length_ms;
    let lengths = [8, 4, 2].map(|part| length_ms / part);
    let lengths = lengths.into_iter().chain([length_ms * 3 / 4]);
    lengths
        .filter(|shorter| *shorter >= 1_000)
        .map(|length_ms| {
            let mut simpler = configuration.clone();
            simpler.length_ms = length_ms;
            simpler.plan.faults.retain(|fault| fault.at_ms < length_ms);
            if simpler.late_data_node_ms >= length_ms {
                leave_the_late_node_out(&mut simpler);
            }
            simpler
        })
        .collect()
}

/// What else can be made simpler, one thing at a time; of each the simplest first.
pub fn smaller(configuration: &Configuration) -> Vec<(&'static str, Vec<Configuration>)> {
    let below = |now: u32| (1..now).collect::<Vec<u32>>();
    let with = |change: &dyn Fn(&mut Configuration)| {
        let mut simpler = configuration.clone();
        change(&mut simpler);
        without_absent_nodes(&mut simpler);
        simpler
    };
    let mut all = Vec::new();
    all.push((
        "no power loss at the end",
        vec![with(&|simpler| simpler.plan.final_power_loss = None)],
    ));
    all.push(("no late data node", vec![with(&leave_the_late_node_out)]));
    let numbers: [(&'static str, u32, fn(&mut Configuration, u32)); 4] = [
        (
            "fewer coordinators",
            configuration.coordinators,
            |simpler, count| {
                simpler.coordinators = count;
            },
        ),
        ("fewer shards", configuration.shards, |simpler, count| {
            simpler.shards = count;
        }),
        ("fewer replicas", configuration.replicas, |simpler, count| {
            simpler.replicas = count;
        }),
        ("fewer clients", configuration.clients, |simpler, count| {
            simpler.clients = count;
        }),
    ];
    for (what, now, change) in numbers {
        let simpler = below(now)
            .into_iter()
            .map(|count| with(&|simpler| change(simpler, count)));
        all.push((what, simpler.collect()));
    }
    let fewer_nodes = |count: u32| {
        with(&|simpler| {
            leave_the_late_node_out(simpler);
            simpler.data_nodes = count;
        })
    };
    let nodes = (configuration.replicas.max(1)..configuration.data_nodes).map(fewer_nodes);
    all.push(("fewer data nodes", nodes.collect()));
    all.push(("fewer accounts", vec![with(&|simpler| simpler.accounts = 2)]));
    all.push(("fewer lists", vec![with(&|simpler| simpler.lists = 1)]));
    all.push((
        "true clocks",
        vec![with(&|simpler| {
            simpler.drift_ppm.fill(0);
            simpler.wall_skew_micros.fill(0);
        })],
    ));
    all.push((
        "calmer clients",
        [400, 150, 50]
            .into_iter()
            .filter(|pause_ms| *pause_ms > configuration.pause_ms)
            .map(|pause_ms| with(&|simpler| simpler.pause_ms = pause_ms))
            .collect(),
    ));
    for (_, alternatives) in &mut all {
        alternatives.retain(|simpler| simpler != configuration);
    }
    all.retain(|(_, alternatives)| !alternatives.is_empty());
    all
}

fn leave_the_late_node_out(configuration: &mut Configuration) {
    if configuration.late_data_node_ms > 0 {
        configuration.late_data_node_ms = 0;
        configuration.data_nodes -= 1;
    }
    without_absent_nodes(configuration);
}

/// Leaves out what breaks nodes that do not exist (any more).
fn without_absent_nodes(configuration: &mut Configuration) {
    let mut present = configuration.server_names();
    present.extend(configuration.client_names());
    configuration.plan.faults.retain(|scheduled| {
        nodes_of(&scheduled.fault)
            .iter()
            .all(|node| present.contains(node))
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_gets_simpler_and_breaks_no_absent_node() {
        for seed in 0..60 {
            let configuration = Configuration::draw(seed, Duration::from_secs(60));
            let shorter = shorter(&configuration);
            assert!(shorter.iter().all(|simpler| simpler.length_ms < 60_000));
            let smaller = smaller(&configuration);
            let all = smaller.into_iter().flat_map(|(_, alternatives)| alternatives);
            for simpler in shorter.into_iter().chain(all) {
                assert_ne!(simpler, configuration);
                assert!(simpler.data_nodes >= simpler.replicas.min(3));
                let mut names = simpler.server_names();
                names.extend(simpler.client_names());
                for scheduled in &simpler.plan.faults {
                    assert!(scheduled.at_ms < simpler.length_ms);
                    assert!(nodes_of(&scheduled.fault).iter().all(|node| names.contains(node)));
                }
            }
        }
    }
}
