//! The write-ahead log against its promise, on a disk that crashes: every acknowledged frame comes back, in
//! order, and nothing comes back that was not appended.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_kms::{DataKey, KeyError, Keyring, MasterKey};
use neorunbase_storage::wal::{
    Apply, Frame, Logged, Recovered, ShardKeys, Wal, WalError, WalOptions, WalRecord,
};
use neorunbase_world::Disk;
use parking_lot::Mutex;
use proptest::prelude::*;
use support::{CrashDisk, SeededEntropy, TestSpawner};

struct FixedKeys;

#[async_trait]
impl ShardKeys for FixedKeys {
    async fn key(&self, shard: u64) -> Result<DataKey, KeyError> {
        Ok(DataKey {
            version: 1,
            secret: [shard as u8; 32],
        })
    }
}

fn options() -> WalOptions {
    WalOptions {
        directory: "wal".to_owned(),
        segment_bytes: 2000,
        max_frame_bytes: 100_000,
    }
}

async fn open(disk: &CrashDisk, entropy: &SeededEntropy) -> Result<(Arc<Wal>, Recovered), WalError> {
    Wal::open_on(
        Arc::new(disk.clone()),
        entropy,
        &TestSpawner,
        options(),
        Arc::new(FixedKeys),
    )
    .await
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn records(number: u64, term: u64, shards: u64, bytes: usize) -> Vec<WalRecord> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + bytes, number as u8);
    let payload = Bytes::from(payload);
    (0..shards)
        .map(|shard| WalRecord {
            shard,
            term,
            sequence: 0,
            payload: payload.clone(),
        })
        .collect()
}

/// A frame that begins a term.
fn began(term: u64) -> Vec<WalRecord> {
    let mut records = records(term, term, 1, 1);
    records[0].sequence = 1;
    records
}

fn number_of(frame: &Frame) -> u64 {
    u64::from_le_bytes(frame.records[0].payload[..8].try_into().unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    /// Appends so many frames of so many shards and bytes at once.
    Append(usize, u64, usize),
    /// Cuts the log below this share of what was acknowledged.
    Truncate(u8),
    /// Power fails after so many more disk operations.
    PowerFailsAfter(u64),
    Crash,
    /// An orderly restart.
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..8_usize, 1..4_u64, 0..600_usize).prop_map(|(count, shards, bytes)| Step::Append(count, shards, bytes)),
        1 => any::<u8>().prop_map(Step::Truncate),
        3 => (0..12_u64).prop_map(Step::PowerFailsAfter),
        2 => Just(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

/// How many shards there are.
const SHARDS: u64 = 4;

struct Model {
    appended: BTreeMap<u64, Vec<WalRecord>>,
    /// What each LSN held when it was acknowledged or recovered.
    durable: BTreeMap<u64, u64>,
    truncated_below: u64,
    /// The sequences of each shard's records that were acknowledged or recovered.
    sequences: BTreeMap<(u64, u64), u64>,
    term: u64,
    next_number: u64,
}

impl Model {
    fn check_sequences(&mut self, recovered: &Recovered) {
        let mut last = BTreeMap::new();
        for frame in &recovered.frames {
            for record in &frame.records {
                let before = last.insert(record.shard, record.sequence);
                assert!(
                    before.is_none_or(|before| record.sequence == before + 1),
                    "{record:?}"
                );
                let known = *self
                    .sequences
                    .entry((frame.lsn, record.shard))
                    .or_insert(record.sequence);
                assert_eq!(known, record.sequence, "of frame {}", frame.lsn);
            }
        }
    }

    /// A frame that begins another term of each shard, and goes on counting where the log ends.
    fn next_term(&mut self) -> (u64, Vec<WalRecord>) {
        self.term += 1;
        let mut last = BTreeMap::new();
        for ((_, shard), sequence) in &self.sequences {
            last.insert(*shard, *sequence);
        }
        let (number, mut records) = self.next_records(SHARDS, 0);
        for record in &mut records {
            record.sequence = last.get(&record.shard).unwrap_or(&0) + 1;
        }
        (number, records)
    }

    fn next_records(&mut self, shards: u64, bytes: usize) -> (u64, Vec<WalRecord>) {
        let number = self.next_number;
        self.next_number += 1;
        let records = records(number, self.term, shards, bytes);
        self.appended.insert(number, records.clone());
        (number, records)
    }

    /// Appends all of `frames` at once, and takes note of those that are acknowledged.
    async fn append(&mut self, wal: &Arc<Wal>, frames: Vec<(u64, Vec<WalRecord>)>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let appends = frames.into_iter().map(|(number, records)| {
            let (wal, applied) = (wal.clone(), applied.clone());
            async move {
                let apply = Box::new(move |logged: &Logged| applied.lock().push((logged.clone(), number)));
                (number, wal.append(records, apply).await)
            }
        });
        let outcomes = futures::future::join_all(appends).await;
        let mut lsns = Vec::new();
        for (logged, number) in applied.lock().iter() {
            lsns.push((logged.lsn, *number));
            for (shard, sequence) in logged.sequences.iter().enumerate() {
                self.sequences.insert((logged.lsn, shard as u64), *sequence);
            }
        }
        assert!(lsns.is_sorted());
        let acknowledged: Vec<(u64, u64)> = outcomes
            .into_iter()
            .filter_map(|(number, outcome)| Some((outcome.ok()?, number)))
            .collect();
        assert_eq!(acknowledged, lsns);
        self.durable.extend(acknowledged);
    }

    fn check(&mut self, recovered: &Recovered) {
        self.check_sequences(recovered);
        assert_eq!(recovered.corrupt, []);
        let lsns: Vec<u64> = recovered.frames.iter().map(|frame| frame.lsn).collect();
        assert!(lsns.windows(2).all(|pair| pair[1] == pair[0] + 1), "{lsns:?}");
        let found: BTreeMap<u64, u64> = recovered
            .frames
            .iter()
            .map(|frame| (frame.lsn, number_of(frame)))
            .collect();
        for (lsn, number) in self.durable.range(self.truncated_below..) {
            assert_eq!(found.get(lsn), Some(number), "acknowledged frame {lsn}");
        }
        for frame in &recovered.frames {
            let mut records = frame.records.clone();
            records.iter_mut().for_each(|record| record.sequence = 0);
            let mut appended = self.appended[&number_of(frame)].clone();
            appended.iter_mut().for_each(|record| record.sequence = 0);
            assert_eq!(records, appended, "frame {}", frame.lsn);
        }
        let mut numbers: Vec<u64> = found.values().copied().collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        numbers.dedup();
        assert_eq!(numbers.len(), found.len(), "a frame came back twice");
        self.durable.extend(found);
    }
}

async fn check_steps(steps: Vec<Step>, seed: u64) {
    let disk = CrashDisk::default();
    let entropy = SeededEntropy::new(seed);
    let mut model = Model {
        appended: BTreeMap::new(),
        durable: BTreeMap::new(),
        truncated_below: 0,
        sequences: BTreeMap::new(),
        term: 0,
        next_number: 1,
    };
    let (mut wal, _) = open(&disk, &entropy).await.unwrap();
    let begin = model.next_term();
    model.append(&wal, vec![begin]).await;
    for step in steps.into_iter().chain([Step::Crash]) {
        match step {
            Step::Append(count, shards, bytes) => {
                let frames = (0..count).map(|_| model.next_records(shards, bytes)).collect();
                model.append(&wal, frames).await;
            }
            Step::Truncate(share) => {
                let last = model.durable.keys().last().copied().unwrap_or(0);
                let lsn = last * u64::from(share) / 255;
                model.truncated_below = model.truncated_below.max(lsn);
                let _ = wal.truncate_below(lsn).await;
            }
            Step::PowerFailsAfter(operations) => disk.fail_after(operations),
            Step::Crash | Step::Reopen => {
                drop(wal);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                if matches!(step, Step::Crash) {
                    disk.crash(&entropy);
                }
                wal = loop {
                    match open(&disk, &entropy).await {
                        Ok((wal, recovered)) => {
                            model.check(&recovered);
                            break wal;
                        }
                        // The power failed during recovery.
                        Err(_) => disk.crash(&entropy),
                    }
                };
                let on_disk: u64 = {
                    let mut bytes = 0;
                    for path in disk.paths() {
                        bytes += disk.open(&path).await.unwrap().length().await.unwrap();
                    }
                    bytes
                };
                assert_eq!(wal.bytes(), on_disk);
                let begin = model.next_term();
                model.append(&wal, vec![begin]).await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("NEORUNBASE_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn acknowledged_frames_survive_crashes(steps in prop::collection::vec(any_step(), 1..40), seed: u64) {
        run(check_steps(steps, seed));
    }
}

/// Appends frames of two shards one by one, so that each is synced before the next.
async fn filled(disk: &CrashDisk, entropy: &SeededEntropy, frames: u64) -> String {
    let (wal, _) = open(disk, entropy).await.unwrap();
    for number in 1..=frames {
        let mut records = records(number, 1, 2, 20);
        records.iter_mut().for_each(|record| record.sequence = number);
        wal.append(records, Box::new(|_| {})).await.unwrap();
    }
    "wal/00000000000000000001.wal".to_owned()
}

#[test]
fn damage_to_one_record_hurts_its_shard_only() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(1));
        let path = filled(&disk, &entropy, 5).await;
        // A frame is 32 + 2 * (32 + 28 + 16) bytes; damage the second record's ciphertext of frame 3.
        let frame_bytes = 184;
        disk.change(&path, |content| {
            content[52 + 2 * frame_bytes + 32 + 64 + 44 + 5] ^= 1
        });
        let (_, recovered) = open(&disk, &entropy).await.unwrap();
        assert_eq!(recovered.frames.len(), 5);
        let mut expected = records(3, 1, 1, 20);
        expected[0].sequence = 3;
        assert_eq!(recovered.frames[2].records, expected);
        assert_eq!(recovered.corrupt.len(), 1);
        assert_eq!(
            (recovered.corrupt[0].shard, recovered.corrupt[0].lsn),
            (Some(1), 3)
        );
        assert_eq!(recovered.corrupt[0].offset, 52 + 2 * frame_bytes as u64);
    });
}

#[test]
fn damage_to_a_header_puts_all_shards_in_doubt() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(2));
        let path = filled(&disk, &entropy, 5).await;
        disk.change(&path, |content| content[52 + 2 * 184 + 40] ^= 1);
        let (wal, recovered) = open(&disk, &entropy).await.unwrap();
        let lsns: Vec<u64> = recovered.frames.iter().map(|frame| frame.lsn).collect();
        assert_eq!(lsns, [1, 2, 4, 5]);
        assert_eq!((recovered.corrupt.len(), recovered.corrupt[0].shard), (1, None));
        assert_eq!(wal.next_lsn(), 6);
        // It stays reported: the damaged segment is not the last one any more.
        drop(wal);
        assert_eq!(open(&disk, &entropy).await.unwrap().1.corrupt.len(), 1);
    });
}

#[test]
fn a_lost_segment_is_noticed() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(3));
        filled(&disk, &entropy, 40).await;
        let paths = disk.paths();
        assert!(paths.len() > 2);
        disk.remove(&paths[1]).await.unwrap();
        let (_, recovered) = open(&disk, &entropy).await.unwrap();
        assert_eq!((recovered.corrupt.len(), recovered.corrupt[0].shard), (1, None));
    });
}

#[test]
fn zeros_at_the_end_are_a_torn_tail() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(4));
        let path = filled(&disk, &entropy, 3).await;
        disk.change(&path, |content| content.extend_from_slice(&[0; 5000]));
        let (wal, recovered) = open(&disk, &entropy).await.unwrap();
        assert_eq!(
            (recovered.frames.len(), recovered.torn_tail_bytes, wal.next_lsn()),
            (3, 5000, 4)
        );
        assert_eq!(recovered.corrupt, []);
    });
}

#[test]
fn another_key_opens_nothing_and_no_plaintext_is_on_disk() {
    struct OtherKeys;
    #[async_trait]
    impl ShardKeys for OtherKeys {
        async fn key(&self, _shard: u64) -> Result<DataKey, KeyError> {
            Ok(DataKey {
                version: 1,
                secret: [99; 32],
            })
        }
    }
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(5));
        let path = filled(&disk, &entropy, 3).await;
        disk.change(&path, |content| {
            assert!(
                !content
                    .windows(10)
                    .any(|window| window.iter().all(|byte| *byte != 0 && *byte == window[0]))
            );
        });
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (_, recovered) = Wal::open_on(disk, &entropy, &TestSpawner, options(), Arc::new(OtherKeys))
            .await
            .unwrap();
        assert_eq!(recovered.corrupt.len(), 6);
        assert!(recovered.frames.iter().all(|frame| frame.records.is_empty()));
    });
}

#[test]
fn a_failed_sync_poisons_the_log() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(6));
        let (wal, _) = open(&disk, &entropy).await.unwrap();
        disk.fail_after(1);
        let never = || -> Apply { Box::new(|_| panic!("applied what is not durable")) };
        assert!(matches!(
            wal.append(began(1), never()).await,
            Err(WalError::Failed(_))
        ));
        disk.fail_after(1000);
        assert!(matches!(
            wal.append(began(2), never()).await,
            Err(WalError::Failed(_))
        ));
        let huge = wal.append(records(3, 1, 1, 200_000), never()).await;
        assert!(matches!(huge, Err(WalError::FrameTooLarge { .. })));
    });
}

#[test]
fn a_keyring_survives_and_knows_its_master_key() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), Arc::new(SeededEntropy::new(7)));
        let master = MasterKey::from_text(&"m".repeat(32)).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let keyring = Keyring::open(shared.clone(), entropy.clone(), "keys/keyring", &master)
            .await
            .unwrap();
        let shard = keyring.shard_key(7).await.unwrap();
        let named = keyring.named_key("metadata").await.unwrap();
        assert_ne!(shard.secret, named.secret);
        disk.crash(&entropy);
        let keyring = Keyring::open(shared.clone(), entropy.clone(), "keys/keyring", &master)
            .await
            .unwrap();
        assert_eq!(keyring.shard_key(7).await.unwrap(), shard);
        assert_eq!(keyring.named_key("metadata").await.unwrap(), named);

        let other = MasterKey::from_text(&"o".repeat(32)).unwrap();
        let error = Keyring::open(shared.clone(), entropy.clone(), "keys/keyring", &other)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "wrong master key: keys/keyring was sealed under another one"
        );
        disk.change("keys/keyring", |content| {
            assert!(!content.windows(32).any(|window| window == shard.secret));
            *content.last_mut().unwrap() ^= 1;
        });
        let error = Keyring::open(shared, entropy, "keys/keyring", &master)
            .await
            .unwrap_err();
        assert!(matches!(error, KeyError::Damaged { .. }));
    });
}

#[test]
fn records_of_a_term_that_is_over_are_refused_and_those_around_them_are_not() {
    run(async {
        let (disk, entropy) = (CrashDisk::default(), SeededEntropy::new(6));
        let (wal, _) = open(&disk, &entropy).await.unwrap();
        let quiet = || Box::new(|_: &Logged| {});
        let never = || Box::new(|_: &Logged| panic!("this frame is not to be written"));
        let refused =
            |outcome: Result<u64, WalError>| matches!(outcome, Err(WalError::TermOver { shard: 0, .. }));
        assert!(
            refused(wal.append(records(1, 1, 1, 1), never()).await),
            "no term has begun"
        );
        wal.append(began(3), quiet()).await.unwrap();
        let outcomes = futures::future::join_all([
            wal.append(records(10, 3, 1, 1), quiet()),
            wal.append(records(11, 2, 1, 1), never()),
            wal.append(records(12, 3, 1, 1), quiet()),
        ]);
        let [before, old, after] = outcomes.await.try_into().unwrap();
        assert_eq!((before.unwrap(), after.unwrap()), (2, 3));
        assert!(refused(old));
        drop(wal);
        let (_, recovered) = open(&disk, &entropy).await.unwrap();
        let found: Vec<_> = recovered
            .frames
            .iter()
            .map(|frame| frame.records[0].sequence)
            .collect();
        assert_eq!(found, [1, 2, 3]);
    });
}
