//! Prometheus' text format.

use std::fmt::Write;
use std::time::Duration;

use neorunbase_server::daemon::{ClusterStatus, DataNodeStatus};

struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, help);
        self.write(format_args!("{name} {value}\n"));
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("a string takes everything");
    }

    fn by_node(
        &mut self,
        name: &str,
        help: &str,
        nodes: &[DataNodeStatus],
        value: fn(&DataNodeStatus) -> u64,
    ) {
        self.family(name, help);
        for node in nodes {
            let label = escape(&node.name);
            self.write(format_args!("{name}{{node=\"{label}\"}} {}\n", value(node)));
        }
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics of the process.
pub fn render(uptime: Duration, ready: bool, status: Option<&ClusterStatus>) -> String {
    let mut metrics = Metrics(String::new());
    metrics.gauge(
        "neorunbase_uptime_seconds",
        "Time since the process started.",
        uptime.as_secs_f64(),
    );
    metrics.gauge(
        "neorunbase_ready",
        "1 if the process serves.",
        f64::from(u8::from(ready)),
    );
    if let Some(bytes) = resident_bytes() {
        metrics.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    let Some(status) = status else { return metrics.0 };
    metrics.gauge(
        "neorunbase_catalog_version",
        "Counts catalog changes.",
        status.catalog_version as f64,
    );
    metrics.gauge(
        "neorunbase_tables",
        "Tables in the catalog.",
        status.tables as f64,
    );
    let nodes = &status.data_nodes[..];
    metrics.by_node(
        "neorunbase_data_node_up",
        "1 if the data node answers.",
        nodes,
        |node| u64::from(node.reachable),
    );
    metrics.by_node(
        "neorunbase_shards",
        "Shards that the node is primary of.",
        nodes,
        |node| node.shards as u64,
    );
    metrics.by_node(
        "neorunbase_shard_bytes",
        "Approximate bytes in its shards.",
        nodes,
        |node| node.bytes,
    );
    metrics.by_node(
        "neorunbase_wal_bytes",
        "Bytes of write-ahead log.",
        nodes,
        |node| node.wal_bytes,
    );
    metrics.by_node(
        "neorunbase_open_transactions",
        "Open transactions on the node.",
        nodes,
        |node| node.open_transactions,
    );
    metrics.by_node(
        "neorunbase_prepared_transactions",
        "Prepared, undecided transactions.",
        nodes,
        |node| node.prepared_transactions,
    );
    metrics.0
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_line() {
        let node = DataNodeStatus {
            name: "data\"node".to_owned(),
            reachable: true,
            shards: 4,
            bytes: 10,
            wal_bytes: 11,
            open_transactions: 2,
            prepared_transactions: 1,
        };
        let status = ClusterStatus {
            coordinator: "coordinator".to_owned(),
            catalog_version: 3,
            tables: 1,
            data_nodes: vec![node],
        };
        let text = render(Duration::from_secs(1), true, Some(&status));
        assert!(
            text.contains("neorunbase_shards{node=\"data\\\"node\"} 4\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE neorunbase_wal_bytes gauge\n"), "{text}");
    }
}
