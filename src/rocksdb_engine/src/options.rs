//! How RocksDB is set up, and what all engines of a process share.

use librocksdb_sys::rocksdb_options_set_avoid_flush_during_shutdown;
use rocksdb::{
    AsRawPtr, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Env, InfoLogger, LogLevel,
    Options, WriteBufferManager,
};

/// Limits of all engines of one process together, where not said otherwise.
#[derive(Clone, Debug)]
pub struct RocksDbOptions {
    /// Size of the cache of uncompressed blocks.
    pub block_cache_bytes: usize,
    /// Unflushed changes; an engine flushes when the sum over all engines nears this.
    pub total_write_buffer_bytes: usize,
    /// Unflushed changes of one engine before it flushes.
    pub write_buffer_bytes: usize,
    /// Threads that flush and compact.
    pub background_threads: u16,
    /// Files that one engine keeps open.
    pub open_files_per_engine: u16,
}

impl Default for RocksDbOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            total_write_buffer_bytes: 256 << 20,
            write_buffer_bytes: 32 << 20,
            background_threads: 2,
            open_files_per_engine: 512,
        }
    }
}

/// The cache and the memory account that all engines of a factory share.
pub(crate) struct SharedResources {
    options: RocksDbOptions,
    block_cache: Cache,
    write_buffer_manager: WriteBufferManager,
}

const BLOCK_BYTES: usize = 16 << 10;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Small, since most shards hold a few rows between flushes.
const MEMTABLE_ARENA_BLOCK_BYTES: usize = 128 << 10;

impl SharedResources {
    pub(crate) fn new(options: RocksDbOptions) -> Self {
        // An entry charge of zero lets the cache find out the size of its entries.
        let block_cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        // Stalling all shards because one cannot flush would spread the trouble.
        let write_buffer_manager =
            WriteBufferManager::new_write_buffer_manager(options.total_write_buffer_bytes, false);
        Self {
            options,
            block_cache,
            write_buffer_manager,
        }
    }

    /// Options of one database, whose files go through `env`.
    pub(crate) fn database_options(&self, env: &Env) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_env(env);
        // The log is never written, so whatever stands in it after a power loss is noise.
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
        // SAFETY: the pointer is valid while `options` lives, which is longer than the call.
        unsafe { rocksdb_options_set_avoid_flush_during_shutdown(options.as_raw_ptr(), 1) };
        options.set_max_background_jobs(i32::from(self.options.background_threads));
        options.set_max_open_files(i32::from(self.options.open_files_per_engine));
        options.set_write_buffer_manager(&self.write_buffer_manager);
        // Writes come one at a time, from one thread each.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        options.set_skip_stats_update_on_db_open(true);
        // Files that an iterator kept alive are deleted in the background, not by the reader.
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        // The default info log is a plain text file beside the data.
        options.set_info_logger(InfoLogger::new_callback_logger(
            LogLevel::Error,
            forward_to_tracing,
        ));
        self.set_table_options(&mut options);
        options
    }

    fn set_table_options(&self, options: &mut Options) {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.block_cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        // Filters and indexes count against the cache, so that many shards stay within its size.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.options.write_buffer_bytes);
        options.set_max_write_buffer_number(4);
        options.set_arena_block_size(MEMTABLE_ARENA_BLOCK_BYTES);
    }
}

fn forward_to_tracing(level: LogLevel, message: &str) {
    if matches!(level, LogLevel::Error | LogLevel::Fatal) {
        tracing::warn!(target: "rocksdb", "{}", message.trim_end());
    }
}
