//! Bugs that roles can be told to have (`neorunbase_world::fault::planted`): who finds none of them finds nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug)]
pub struct PlantedBug {
    /// What the code asks for.
    pub name: &'static str,
    /// What it breaks.
    pub what: &'static str,
    /// Which real system had it, or one like it ("akin"); a dash where none is known.
    pub seen_in: &'static str,
}

const fn bug(name: &'static str, what: &'static str, seen_in: &'static str) -> PlantedBug {
    PlantedBug { name, what, seen_in }
}

/// All that have a name.
pub fn all() -> impl Iterator<Item = PlantedBug> {
    BUGS.iter().chain(ELUSIVE_BUGS).copied()
}

/// Bugs that the suite has to find.
#[rustfmt::skip]
pub const BUGS: &[PlantedBug] = &[
    bug("ack-before-fsync", "the log acknowledges before its sync", "NATS JetStream 2.12.1 (Jepsen 2025), Elasticsearch 1.5.0 (Jepsen 2015)"),
    bug("torn-tail-accepted", "recovery takes a torn log record for a good one", "the class that ALICE looks for (OSDI 2014)"),
    bug("commit-one-shard", "a commit is applied on one of its shards only", "—"),
    bug("read-uncommitted", "reads see writes that were not committed", "VoltDB 6.3 (Jepsen 2016): dirty reads"),
    bug("lock-early-release", "row locks are let go before the commit", "—"),
    bug("lost-prepared", "recovery forgets prepared transactions", "—"),
    bug("savepoint-keeps-writes", "ROLLBACK TO SAVEPOINT takes no writes back", "—"),
    bug("savepoint-keeps-locks", "ROLLBACK TO SAVEPOINT lets go of no lock", "—"),
    bug("savepoint-frees-all-locks", "ROLLBACK TO SAVEPOINT lets go of locks from before the savepoint, too", "—"),
    bug("ack-without-followers", "a primary acknowledges what is durable on itself only", "MongoDB 2.4 with its default write concern (Jepsen 2013)"),
    bug("shrink-after-ack", "a silent follower does not count any more before it has left the in-sync set", "akin: Kafka 0.8 beta (Jepsen 2013), acknowledged writes lost with the set's last member"),
    bug("follower-acks-before-fsync", "a follower acknowledges entries before they are durable", "NATS JetStream 2.12.1 (Jepsen 2025)"),
    bug("follower-applies-uncommitted", "a follower applies entries that may still be overwritten", "—"),
    bug("transactions-outlive-terms", "a transaction goes on in the next term without what it wrote in the one before", "—"),
    bug("deposed-primary-acks", "a deposed primary acknowledges commits that the next one may not have", "akin: MongoDB 3.4.0-rc3 (Jepsen 2017), acknowledged majority writes rolled back"),
    bug("term-begun-twice", "a primary goes on in its old term after a restart", "—"),
    bug("log-cut-too-early", "a checkpoint cuts the log below entries that are neither applied nor decided", "—"),
    bug("revived-without-locks", "a new primary finds prepared transactions, but does not lock what they wrote", "—"),
    bug("outcome-not-replayed", "followers forget the writes of prepared transactions that commit", "—"),
    bug("copy-without-prepared", "the copy of a shard leaves out what is prepared", "akin: Dgraph 1.1.1 (Jepsen 2020), acknowledged writes lost when a tablet moved"),
    bug("promotion-outside-set", "the Controller promotes a copy that is not in the in-sync set", "Kafka's unclean leader election, the default before 0.11 (KIP-106)"),
    bug("read-set-ignores-ranges", "SERIALIZABLE remembers the keys that were read, but no ranges", "—"),
    bug("read-set-not-validated", "SERIALIZABLE commits whatever became of what was read", "akin: TiDB 2.1.7 (Jepsen 2019), retried writes did not look again at what had been read"),
    bug("read-set-released-before-decision", "SERIALIZABLE validates before the commit timestamp is drawn, and nothing holds the reads after", "—"),
    bug("read-set-ignores-marks", "SERIALIZABLE validates against committed versions, not against writes that are being committed", "akin: PostgreSQL 12.3 (Jepsen 2020), G2-item under concurrent writes"),
    bug("savepoint-forgets-reads", "ROLLBACK TO SAVEPOINT forgets what SERIALIZABLE has to validate", "—"),
    bug("oracle-ignores-successor", "a leader raises the limit of timestamps that its successor has written", "—"),
    bug("oracle-limit-creeps", "every renewal of the oracle's lease raises the limit of timestamps, so that the next leader begins far ahead of the clock", "this one, until a simulation met it"),
    bug("catalog-acknowledged-alone", "a definition is acknowledged before the other coordinators have it", "—"),
    bug("oracle-starts-below-limit", "a new leader hands out timestamps below those of the one before", "—"),
    bug("sync-error-ignored", "a failed sync of the log counts as a good one", "PostgreSQL until 2019 (fsyncgate)"),
    bug("divergent-tail-kept", "a follower keeps entries that its primary does not have", "Kafka before KIP-101"),
    bug("grow-before-caught-up", "a follower is taken into the in-sync set before it has everything", "—"),
    bug("snapshot-skips-prepared", "a snapshot shows the row as it was before a transaction that is being committed below it", "the class of read skew: YugabyteDB 1.1.9 (Jepsen 2019)"),
    bug("double-decision", "a second decision on a transaction is taken for the first", "—"),
    bug("in-doubt-presumed-aborted", "whoever meets a prepared transaction rolls it back without asking its anchor", "the class of unilateral aborts after PREPARE"),
    bug("duplicate-request-applied", "a statement that is sent again is carried out again", "akin: TiDB 2.1.7 (Jepsen 2019), jetcd 0.8.2 (a client that retried what is not idempotent)"),
    bug("gc-below-snapshot", "rows are read at a snapshot whose versions were collected", "—"),
    bug("lock-only-parts-end-at-prepare", "a node where a transaction has only locked rows lets go of them before the commit timestamp is drawn", "this one, until it was read again"),
    bug("staging-taken-for-preparing", "a snapshot does not wait for a staged commit that is being written, though its timestamp was drawn before", "this one, until a simulation met it"),
    bug("replaced-disk-trusted", "a node that comes back with an empty disk is counted on for what it had before", "akin: Kafka before KIP-966, the last replica in sync came back without some of its data"),
    bug("history-kept-too-short", "rows that can still be read AS OF are collected", "—"),
    bug("checkpoint-without-its-term", "a restarted node takes what it has applied to be of the term that it has begun last", "the class of checkpoints without their epoch"),
    bug("unique-value-not-locked", "a unique value is looked for without its lock: two who look at the same time both find it free", "the class of constraints that are checked by a SELECT first"),
    bug("stale-primary-read", "a primary serves reads after its leases have ended", "etcd 0.4.1 and Consul 0.3 (Jepsen 2014), MongoDB 2.6.7 (Jepsen 2015)"),
    bug("fence-ignored-by-commits", "a transaction commits what it wrote under an old definition of a table", "the class of F1's schema changes (VLDB 2013)"),
    bug("fence-ignored-by-readers", "rows of a truncated table are read by a coordinator that has not heard of it", "the class of F1's schema changes (VLDB 2013)"),
    bug("index-without-fence", "an index is built while coordinators that do not know it may write", "the class of F1's schema changes (VLDB 2013)"),
    bug("anchor-decision-not-durable", "a decision is told before it is durable", "—"),
    bug("copy-misses-tail", "a copy of a shard is said to hold entries of the log that were not applied when it began", "akin: Dgraph 1.1.1 (Jepsen 2020)"),
    bug("copy-resumes-at-wrong-piece", "a copy that was interrupted goes on behind the piece that did not arrive", "—"),
    bug("staged-commit-presumed-aborted", "a staged commit whose node has died is rolled back though it is prepared in all of its shards", "the class of parallel commits: a status recovery that does not ask"),
    bug("old-term-accepted", "entries of a deposed primary are taken, by followers and by its successor", "the class of HBase's zombie region servers"),
];

/// Bugs that the suite does not ask for: those that survived as many seeds as were looked at, and those that were seen to fail on
/// one seed, or in a unit test, and have not been looked for from the first seed on (`docs/planted-bugs.md` tells which).
#[rustfmt::skip]
pub const ELUSIVE_BUGS: &[PlantedBug] = &[
    bug("watch-lost", "the watch is armed after the reading, and nobody reads again", "the class of ZooKeeper clients that read before they watch"),
    bug("interrupted-copy-not-begun-again", "a copy whose sender died is waited for, for ever", "this one, until a simulation met it"),
    bug("full-disk-keeps-tail", "a commit that was refused on a full disk stays in the log", "—"),
    bug("oracle-ignores-lease", "a new leader hands out timestamps while the old one may still do so", "—"),
    bug("catalog-led-from-outside", "a coordinator leads the catalog though it lacks acknowledged definitions", "—"),
    bug("change-without-version", "a shard's configuration is replaced by whoever writes last", "the class of zombie controllers"),
    bug("lease-from-answer", "a primary counts its lease from the follower's answer, not from its question", "—"),
    bug("refused-by-a-deposed-primary", "a deposed primary refuses a statement because of rows that it still has: a unique value that is free by now", "this one, until a simulation met it"),
    bug("decision-forgotten-early", "the anchor forgets a decision that not every participant has heard of", "the class of Citus's transaction recovery (its order of look-ups)"),
    bug("forgotten-commit-presumed-aborted", "a node that has forgotten a commit says that it was an abort", "—"),
    bug("index-ignores-collection", "an index is walked at a snapshot whose entries were collected", "—"),
    bug("registry-locked-first", "a copy that is given up and one that comes in wait for each other's lock", "this one, until the chaos script met it"),
    bug("newest-rows-not-of-one-instant", "a statement takes the newest versions of several rows, though one with a lower timestamp is still being committed", "this one, until a simulation met it"),
    bug("refused-decision-believed", "a decision counts as refused if the anchor's node has failed, or its copy is damaged, when it is sent again", "this one, until a simulation met it"),
    bug("lower-terms-not-replayed", "a restarted node skips entries of a lower term than the one that they have replaced", "this one, until a simulation met it"),
    bug("storage-dropped-somewhere", "a dropped table's rows are forgotten though some shard still has them", "this one, until a simulation met it"),
    bug("row-locks-not-checked", "a transaction commits though rows that it has only locked got another primary, which does not know of the locks", "this one, until it was read again"),
    bug("staged-commit-ignores-voided", "a staged commit counts as committed though one of its shards got another primary before it had the record", "the class of parallel commits: an implicit commit of less than all writes"),
    bug("staged-part-under-way-taken-for-absent", "a staged commit is rolled back because a shard is still writing its record", "the class of parallel commits: a status recovery that does not keep out late writes"),
    bug("decided-without-the-anchor", "a node that has just lost the anchor finishes what else it has of a transaction as if it had decided", "this one, until it was read again"),
    bug("staged-part-finished-undecided", "a part of a staged commit is finished, and forgotten, before its anchor has decided", "this one, until a simulation met it"),
    bug("given-up-copy-not-taken-back", "a copy that could not be dropped because the disk was full, and that is wanted again, takes nothing any more", "this one, until a simulation met it"),
    bug("own-refusal-above-the-log", "a node that was deposed while it committed a statement says that it was aborted, though its successor committed it", "this one, until it was read again"),
    bug("takeover-not-awaited-again", "a leader whose takeover was broken off does not wait for the lease of the one before when it takes over again", "this one, until it was read again"),
    bug("change-broken-off", "a change of the catalog ends halfway when whoever asked for it goes away, and another one becomes the same version", "this one, until a simulation met it"),
    bug("late-hold-kept", "a coordinator holds a table still for a definition that was broken off before", "this one, until it was read again"),
    bug("decision-forgotten-when-told", "the anchor forgets a decision that its coordinator may still ask for", "this one, until it was read again"),
    bug("decided-part-kept", "an anchor decides once more when the outcome cannot be logged on the transaction's other shards", "this one, until a simulation met it"),
    bug("term-begun-with-an-old-set", "a primary whose configuration changed while it began its term does not hear of that", "this one, until a simulation met it"),
    bug("part-taken-for-the-anchors", "a new primary of the anchor that holds another part of the transaction says for ever that it is undecided", "this one, until a simulation met it"),
    bug("oracle-deposed-for-ever", "a leader whose predecessor's last write came late hands out no timestamps, and does not stand again", "this one, until a simulation met it"),
    bug("drain-drops-before-copied", "a node that is drained hands its shards over to copies that are not in sync yet", "—"),
    bug("oracle-outlives-lease", "a leader hands out timestamps though a successor may do so already", "—"),
    bug("old-catalog-accepted", "a coordinator accepts the catalog of a deposed leader", "—"),
    bug("catalog-outlives-lease", "a coordinator shows a catalog that may be old", "—"),
    bug("catalog-lease-not-awaited", "a definition is acknowledged while a coordinator still shows the catalog before", "—"),
    bug("first-write-not-fenced", "a transaction commits what it wrote under an old definition of a table if it wrote there under the new one, too", "this one, until it was read again"),
    bug("fence-does-not-wait", "an index is built while transactions without it are being committed", "the class of F1's schema changes (VLDB 2013)"),
    bug("term-begins-under-lease", "a term begins while the primary before still has a lease", "—"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_rows_fit_into_a_table() {
        let names: BTreeSet<_> = all().map(|bug| bug.name).collect();
        assert_eq!(names.len(), all().count());
        for bug in all() {
            for text in [bug.name, bug.what, bug.seen_in] {
                assert!(!text.is_empty() && !text.contains(['|', '\n']), "{text}");
            }
        }
    }
}
