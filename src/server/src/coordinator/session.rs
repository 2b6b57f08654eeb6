//! One client's session: analysed statements, the transaction block, settings.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use neorunbase_catalog::Table;
use neorunbase_catalog::schema::TableId;
use neorunbase_expression::EvaluationContext;
use neorunbase_frontend::{
    Client, ColumnDescription, ExecuteOutcome, Portal, Prepared, Session, Startup, TransactionStatus,
};
use neorunbase_protocol::message::{ProgramRef, Timestamp};
use neorunbase_sql::parser::{ParsedKind, ParsedStatement, parse};
use neorunbase_sql::plan::{
    Definition, IsolationLevel, Plan, SettingCommand, Statement, TransactionCommand, TransactionModes,
};
use neorunbase_sql::{AnalysisContext, analyze};
use neorunbase_types::{Datum, Result, SqlError, SqlState, SqlType};
use neorunbase_world::clock::timeout;
use tokio::sync::watch;

use super::execute::Execution;
use super::execute::insert::Written;
use super::execute::select::RowBatches;
use super::location::TableLocation;
use super::session_core::SessionCore;
use super::settings::{Settings, isolation_name, on_or_off};
use super::table_locks::SharedTableLock;
use super::transaction::{Transaction, no_savepoint};
use super::{Coordinator, DATABASE};

/// Rows between two looks at the client's buffer.
const ROWS_PER_FLUSH: usize = 64;

/// A statement with what its executions have in common, or of one execution: what it reads and shows of time.
struct CachedPlan {
    parsed: ParsedStatement,
    parameter_types: Vec<Option<SqlType>>,
    statement: Statement,
    location: OnceLock<TableLocation>,
    program: OnceLock<ProgramRef>,
    /// AS OF SYSTEM TIME; 0: none, or to be resolved at each execution.
    as_of: Timestamp,
    /// `cluster_logical_timestamp()`, of one execution.
    logical_timestamp: Option<Timestamp>,
}

/// Prepared from nothing but blanks and comments.
struct EmptyStatement;

/// A transaction with the tables it keeps from being redefined.
struct OpenBlock {
    transaction: Transaction,
    locks: BTreeMap<TableId, SharedTableLock>,
}

/// Where the session stands between statements.
enum Block {
    /// Outside any.
    None,
    /// Statements since the last Sync (or of one query string): ends by itself.
    Implicit(OpenBlock),
    /// Since BEGIN.
    Explicit(OpenBlock),
    /// Since an error after BEGIN. If there is a savepoint to go back to, what was done before it is still there.
    Failed(Option<OpenBlock>),
}

/// A suspended portal.
struct Suspended {
    batches: RowBatches,
    ready: std::vec::IntoIter<Vec<Datum>>,
    sent: u64,
}

/// [`Session`] of the Coordinator.
pub struct CoordinatorSession {
    core: Arc<SessionCore>,
    settings: Settings,
    block: Block,
    cancel: watch::Receiver<u64>,
    /// Whether the statement under way is a definition: whoever breaks it off cannot know what came of it.
    is_defining: bool,
}

fn describe(statement: &Statement) -> Option<Vec<ColumnDescription>> {
    let columns = statement.columns.as_ref()?;
    Some(
        columns
            .iter()
            .map(|column| ColumnDescription {
                name: column.name.clone(),
                sql_type: column.sql_type.clone(),
                table_oid: column.origin.0,
                column_number: column.origin.1,
            })
            .collect(),
    )
}

impl CoordinatorSession {
    /// A session for whoever `startup` names.
    pub fn new(coordinator: Arc<Coordinator>, startup: Startup) -> Self {
        let mut settings = Settings::default();
        for (name, value) in &startup.parameters {
            // PostgreSQL refuses unknown startup settings; drivers send some that we do not have.
            if let Err(error) = settings.set(&name.to_ascii_lowercase(), Some(value), false) {
                tracing::debug!(%name, %error, "startup setting left alone");
            }
        }
        let core = SessionCore {
            coordinator,
            user: startup.user,
            process_id: startup.process_id,
        };
        Self {
            core: Arc::new(core),
            settings,
            block: Block::None,
            cancel: startup.cancel,
            is_defining: false,
        }
    }

    /// Analyses a statement against a catalog that is certain to be the latest, where that matters.
    async fn analyze_current(
        &self,
        parsed: ParsedStatement,
        parameter_types: Vec<Option<SqlType>>,
    ) -> Result<CachedPlan> {
        if !leaves_failed_block(&parsed) {
            self.core.coordinator.metadata.current().await?;
        }
        self.analyze(parsed, parameter_types, None)
    }

    fn analyze(
        &self,
        parsed: ParsedStatement,
        parameter_types: Vec<Option<SqlType>>,
        logical_timestamp: Option<Timestamp>,
    ) -> Result<CachedPlan> {
        let mut settings = self.settings.values();
        if let Block::Explicit(open) = &self.block {
            settings.extend(open.transaction.settings());
        }
        let context = AnalysisContext {
            catalog: self.core.coordinator.metadata.snapshot(),
            user: self.core.user.clone(),
            database: DATABASE.to_owned(),
            search_path: self.settings.search_path(&self.core.user),
            process_id: self.core.process_id,
            settings,
            cluster: self.core.coordinator.router.directory().clone(),
            logical_timestamp,
        };
        let statement = analyze(&parsed, &parameter_types, &context)?;
        Ok(CachedPlan {
            parsed,
            parameter_types,
            statement,
            location: OnceLock::new(),
            program: OnceLock::new(),
            as_of: 0,
            logical_timestamp,
        })
    }

    /// Limits that hold for users who still have the password they were given.
    fn check_password_changed(&self, plan: &Plan) -> Result<()> {
        let catalog = self.core.coordinator.metadata.snapshot();
        let must_change = catalog
            .users
            .get(&self.core.user)
            .is_some_and(|user| user.must_change_password);
        let allowed = match plan {
            Plan::Definition(definition) => {
                matches!(&**definition, Definition::SetPassword { user, .. } if *user == self.core.user)
            }
            Plan::Empty | Plan::Transaction(_) | Plan::Setting(_) => true,
            _ => false,
        };
        if must_change && !allowed {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                "the initial password must be changed first",
            )
            .with_hint(format!("ALTER USER {} PASSWORD '…'", self.core.user)));
        }
        Ok(())
    }

    fn new_transaction(&self) -> Transaction {
        let mut transaction = Transaction::begin(
            self.core.coordinator.transaction_services.clone(),
            self.settings.default_isolation(),
            self.settings.default_read_only(),
        );
        transaction.deferrable = self.settings.default_deferrable();
        transaction
    }

    /// Runs `plan` to its end (or to the row limit), within the cancel and time limits of the session.
    async fn run(
        &mut self,
        plan: &CachedPlan,
        parameters: &[Datum],
        execution: &mut Option<Box<dyn std::any::Any + Send>>,
        max_rows: usize,
        client: &mut dyn Client,
        alone: bool,
    ) -> Result<ExecuteOutcome> {
        // A commit under way cannot be taken back, only completed: as in PostgreSQL nothing interrupts it.
        let commits = matches!(plan.statement.plan, Plan::Transaction(TransactionCommand::Commit));
        let limit_ms = if commits {
            0
        } else {
            self.settings.milliseconds("statement_timeout")
        };
        let mut cancel = self.cancel.clone();
        cancel.mark_unchanged();
        self.is_defining = false;
        let clock = self.core.coordinator.world.clock.clone();
        let working = self.run_uncancelled(plan, parameters, execution, max_rows, client, alone);
        let cancelled = async {
            if cancel.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let guarded = async {
            tokio::select! {
                biased;
                outcome = working => Ok(outcome),
                () = cancelled, if !commits => Err("canceling statement due to user request"),
            }
        };
        let ended = if limit_ms == 0 {
            guarded.await
        } else {
            timeout(&*clock, Duration::from_millis(limit_ms), guarded)
                .await
                .unwrap_or(Err("canceling statement due to statement timeout"))
        };
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(reason) => Err(self.cancelled(reason).await),
        };
        if outcome.is_err() {
            self.statement_failed().await;
        }
        outcome
    }

    /// What to say about a statement that was broken off for `reason`: `57014` promises that nothing came of it.
    async fn cancelled(&mut self, reason: &str) -> Box<SqlError> {
        if self.is_defining {
            return SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                format!("{reason}: it may or may not have taken effect"),
            );
        }
        let error = SqlError::new(SqlState::QUERY_CANCELED, reason);
        match std::mem::replace(&mut self.block, Block::None) {
            // It was to commit at once, and may have done so.
            Block::Implicit(open) if open.transaction.may_have_committed => {
                open.transaction.cancel_commit(error).await
            }
            block => {
                self.block = block;
                error
            }
        }
    }

    async fn run_uncancelled(
        &mut self,
        plan: &CachedPlan,
        parameters: &[Datum],
        execution: &mut Option<Box<dyn std::any::Any + Send>>,
        max_rows: usize,
        client: &mut dyn Client,
        alone: bool,
    ) -> Result<ExecuteOutcome> {
        if let Plan::Transaction(command) = &plan.statement.plan {
            self.transaction_command(command, client).await?;
            return Ok(ExecuteOutcome::Complete);
        }
        if matches!(self.block, Block::Failed(_)) {
            return Err(failed_block());
        }
        if let Some(suspended) = execution.take() {
            let suspended = suspended
                .downcast()
                .map_err(|_| SqlError::internal("portal of another kind"))?;
            return self
                .send_rows(*suspended, plan, execution, max_rows, client)
                .await;
        }
        self.check_password_changed(&plan.statement.plan)?;
        self.core.coordinator.metadata.current().await?;
        // A plan made before the latest definition may name what is no longer there.
        let renewed;
        let mut plan = plan;
        if plan.statement.catalog_version != self.core.coordinator.metadata.snapshot().version {
            renewed = self.renew(plan)?;
            plan = &renewed;
        }
        let in_time;
        if plan.parsed.as_of.is_some() || plan.statement.uses_logical_timestamp {
            in_time = self.fix_in_time(plan).await?;
            plan = &in_time;
        }
        if let Some(table) = written_table(&plan.statement.plan) {
            let id = table.id;
            self.share_table(id).await?;
            // Nothing can be redefined from here on; what was redefined while we waited counts.
            if plan.statement.catalog_version != self.core.coordinator.metadata.snapshot().version {
                let again = self.renew(plan)?;
                return Box::pin(self.run_plan(&again, parameters, execution, max_rows, client, alone)).await;
            }
        }
        self.run_plan(plan, parameters, execution, max_rows, client, alone)
            .await
    }

    /// `now()`: when the transaction began, or now outside one.
    fn transaction_time_unix_micros(&self) -> i64 {
        match &self.block {
            Block::Implicit(open) | Block::Explicit(open) => open.transaction.time_unix_micros,
            Block::None | Block::Failed(_) => self.core.coordinator.world.clock.wall_clock_unix_micros(),
        }
    }

    fn renew(&self, plan: &CachedPlan) -> Result<CachedPlan> {
        let (parsed, types) = (plan.parsed.clone(), plan.parameter_types.clone());
        let mut renewed = self.analyze(parsed, types, plan.logical_timestamp)?;
        renewed.as_of = plan.as_of;
        if renewed.statement.columns != plan.statement.columns {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cached plan must not change result type",
            ));
        }
        Ok(renewed)
    }

    /// The plan of one execution that reads the past or shows a timestamp.
    async fn fix_in_time(&mut self, plan: &CachedPlan) -> Result<CachedPlan> {
        let mut timestamps = (0, None);
        if let Some(as_of) = plan.parsed.as_of {
            timestamps.0 = self.new_transaction().read_as_of(as_of).await?;
            if let Block::Explicit(open) = &self.block
                && open.transaction.past() != Some(timestamps.0)
            {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "AS OF SYSTEM TIME of a statement must be that of its transaction",
                )
                .with_hint("Begin the transaction with BEGIN AS OF SYSTEM TIME."));
            }
        }
        if plan.statement.uses_logical_timestamp {
            timestamps.1 = Some(match &mut self.block {
                _ if timestamps.0 != 0 => timestamps.0,
                Block::Implicit(open) | Block::Explicit(open) => open.transaction.logical_timestamp().await?,
                Block::None | Block::Failed(_) => self.new_transaction().logical_timestamp().await?,
            });
        }
        self.renew(&CachedPlan {
            parsed: plan.parsed.clone(),
            parameter_types: plan.parameter_types.clone(),
            statement: plan.statement.clone(),
            location: OnceLock::new(),
            program: OnceLock::new(),
            as_of: timestamps.0,
            logical_timestamp: timestamps.1,
        })
    }

    /// The block that statements run in, begun if need be.
    fn open_block(&mut self) -> Result<&mut OpenBlock> {
        if matches!(self.block, Block::None) {
            let transaction = self.new_transaction();
            self.block = Block::Implicit(OpenBlock {
                transaction,
                locks: BTreeMap::new(),
            });
        }
        match &mut self.block {
            Block::Implicit(open) | Block::Explicit(open) => Ok(open),
            Block::None | Block::Failed(_) => Err(failed_block()),
        }
    }

    async fn share_table(&mut self, table: TableId) -> Result<()> {
        let core = self.core.clone();
        let open = self.open_block()?;
        if let std::collections::btree_map::Entry::Vacant(slot) = open.locks.entry(table) {
            slot.insert(core.coordinator.table_locks.share(table).await);
        }
        Ok(())
    }

    async fn run_plan(
        &mut self,
        plan: &CachedPlan,
        parameters: &[Datum],
        execution: &mut Option<Box<dyn std::any::Any + Send>>,
        max_rows: usize,
        client: &mut dyn Client,
        alone: bool,
    ) -> Result<ExecuteOutcome> {
        match &plan.statement.plan {
            Plan::Empty => {
                client.empty_query();
                return Ok(ExecuteOutcome::Complete);
            }
            Plan::Setting(command) => {
                self.setting_command(command, client).await?;
                return Ok(ExecuteOutcome::Complete);
            }
            Plan::Maintenance { tag } => {
                if *tag == "VACUUM" {
                    self.core.coordinator.collect_garbage().await;
                }
                client.command_complete(tag);
                return Ok(ExecuteOutcome::Complete);
            }
            Plan::Explain(lines) => {
                for line in lines {
                    client.row(&[Datum::Text(line.as_str().into())]);
                }
                client.command_complete("EXPLAIN");
                return Ok(ExecuteOutcome::Complete);
            }
            Plan::Values(rows) => {
                let context = EvaluationContext {
                    row: &[],
                    parameters,
                    statement_time_unix_micros: self.transaction_time_unix_micros(),
                };
                let rows = rows
                    .iter()
                    .map(|row| {
                        row.iter()
                            .map(|expression| expression.evaluate(&context))
                            .collect()
                    })
                    .collect::<Result<Vec<Vec<Datum>>>>()?;
                let rows = Suspended {
                    batches: futures::stream::empty().boxed(),
                    ready: rows.into_iter(),
                    sent: 0,
                };
                return self.send_rows(rows, plan, execution, max_rows, client).await;
            }
            Plan::Failure(error) => return Err(error.clone()),
            Plan::Definition(definition) => {
                if matches!(self.block, Block::Explicit(_)) && changes_tables(definition) {
                    let warning = SqlError::new(
                        SqlState("01000"),
                        "definitions take effect at once: ROLLBACK will not undo this one",
                    );
                    client.notice("WARNING", &warning);
                }
                // What this transaction has written to the tables must not keep itself out.
                if let Block::Explicit(open) | Block::Implicit(open) = &mut self.block
                    && !open.transaction.has_participants()
                {
                    open.locks.clear();
                }
            }
            _ => {}
        }
        let implicit = matches!(self.block, Block::None | Block::Implicit(_));
        let core = self.core.clone();
        let lock_timeout_ms = u32::try_from(self.settings.milliseconds("lock_timeout")).unwrap_or(u32::MAX);
        self.is_defining = matches!(&plan.statement.plan, Plan::Definition(_));
        // A read outside a block, or of the past, leaves nothing behind: it needs no block of its own. Unless statements
        // may follow that belong to the same transaction and have to see the same.
        let mut lone_read;
        let reads_only =
            matches!(&plan.statement.plan, Plan::SimpleSelect(select) if select.locking.is_none());
        let shares_snapshot = !alone && self.settings.default_isolation() != IsolationLevel::ReadCommitted;
        let is_lone_read = reads_only && !shares_snapshot && matches!(self.block, Block::None);
        let transaction = if plan.as_of != 0 || is_lone_read {
            lone_read = self.new_transaction();
            if plan.as_of != 0 {
                lone_read.read_at(plan.as_of);
            }
            &mut lone_read
        } else {
            &mut self.open_block()?.transaction
        };
        transaction.lock_timeout_ms = lock_timeout_ms;
        if transaction.read_only && !plan.statement.read_only {
            return Err(SqlError::new(
                SqlState::READ_ONLY_SQL_TRANSACTION,
                format!(
                    "cannot execute {} in a read-only transaction",
                    tag_of(&plan.statement.plan)
                ),
            ));
        }
        transaction.start_statement().await?;
        let commits_at_once = alone && implicit && !transaction.has_participants();
        let mut run = Execution {
            core: &core,
            transaction,
            parameters: Arc::from(parameters),
            commits_at_once,
        };
        let location = |table: &Arc<Table>| match plan.location.get() {
            Some(location) => Ok(location),
            None => TableLocation::new(&core.coordinator.metadata.snapshot(), table)
                .map(|found| plan.location.get_or_init(|| found)),
        };
        let written = match &plan.statement.plan {
            Plan::SimpleSelect(select) => {
                let program = plan
                    .program
                    .get_or_init(|| ProgramRef::new(select.program.encode()));
                let batches = run
                    .simple_select(select, location(&select.table)?, program)
                    .await?;
                let rows = Suspended {
                    batches,
                    ready: Vec::new().into_iter(),
                    sent: 0,
                };
                return self.send_rows(rows, plan, execution, max_rows, client).await;
            }
            Plan::Query(query) => {
                let access = run.table_access(!plan.statement.read_only).await?;
                let time = run.transaction.time_unix_micros;
                let batches = query.execute(run.parameters.clone(), access, time).await?;
                if !plan.statement.read_only {
                    // Locks are taken while rows come in: all of them must be known before anything else happens.
                    let rows: Vec<Result<Vec<Vec<Datum>>>> = batches.collect().await;
                    run.transaction.take_in_locked();
                    let rows: Vec<Vec<Datum>> = rows
                        .into_iter()
                        .collect::<Result<Vec<_>>>()?
                        .into_iter()
                        .flatten()
                        .collect();
                    let rows = Suspended {
                        batches: futures::stream::empty().boxed(),
                        ready: rows.into_iter(),
                        sent: 0,
                    };
                    return self.send_rows(rows, plan, execution, max_rows, client).await;
                }
                let rows = Suspended {
                    batches: batches.boxed(),
                    ready: Vec::new().into_iter(),
                    sent: 0,
                };
                return self.send_rows(rows, plan, execution, max_rows, client).await;
            }
            Plan::Insert(insert) => run.insert(insert, location(&insert.table)?).await?,
            Plan::Modify(modify) => {
                let program = plan
                    .program
                    .get_or_init(|| ProgramRef::new(modify.program.encode()));
                run.modify(modify, location(&modify.table)?, program).await?
            }
            Plan::ModifyByQuery(modify) => run.modify_by_query(modify, location(&modify.table)?).await?,
            Plan::Copy(copy) => {
                let rows = match &copy.table {
                    Some(table) => run.copy_in(copy, location(table)?, client).await?,
                    None => {
                        let types: Vec<SqlType> = plan
                            .statement
                            .columns
                            .iter()
                            .flatten()
                            .map(|column| column.sql_type.clone())
                            .collect();
                        run.copy_out(copy, &types, client).await?
                    }
                };
                client.command_complete(&format!("COPY {rows}"));
                return Ok(ExecuteOutcome::Complete);
            }
            Plan::Definition(definition) => {
                let defined = run.define(definition).await?;
                for notice in &defined.notices {
                    client.notice("NOTICE", notice);
                }
                client.command_complete(&defined.tag);
                return Ok(ExecuteOutcome::Complete);
            }
            _ => return Err(SqlError::internal("a statement of an unknown kind")),
        };
        self.report_written(&plan.statement.plan, written, client);
        Ok(ExecuteOutcome::Complete)
    }

    fn report_written(&mut self, plan: &Plan, written: Written, client: &mut dyn Client) {
        if written.committed {
            if let Block::Implicit(open) = std::mem::replace(&mut self.block, Block::None) {
                open.transaction.committed_by_shard();
            }
            self.settings.commit();
        }
        for row in &written.returned {
            client.row(row);
        }
        let affected = written.affected;
        let tag = tag_of(plan);
        if tag == "INSERT" {
            client.command_complete(&format!("INSERT 0 {affected}"));
        } else {
            client.command_complete(&format!("{tag} {affected}"));
        }
    }

    async fn send_rows(
        &mut self,
        mut rows: Suspended,
        plan: &CachedPlan,
        execution: &mut Option<Box<dyn std::any::Any + Send>>,
        max_rows: usize,
        client: &mut dyn Client,
    ) -> Result<ExecuteOutcome> {
        let mut sent_now = 0;
        loop {
            while let Some(row) = rows.ready.next() {
                client.row(&row);
                rows.sent += 1;
                sent_now += 1;
                if sent_now == max_rows {
                    *execution = Some(Box::new(rows));
                    return Ok(ExecuteOutcome::Suspended);
                }
                if sent_now % ROWS_PER_FLUSH == 0 {
                    client.make_room().await?;
                }
            }
            match rows.batches.next().await {
                Some(batch) => rows.ready = batch?.into_iter(),
                None => break,
            }
        }
        let tag = tag_of(&plan.statement.plan);
        client.command_complete(&format!("{tag} {}", rows.sent));
        Ok(ExecuteOutcome::Complete)
    }

    async fn transaction_command(
        &mut self,
        command: &TransactionCommand,
        client: &mut dyn Client,
    ) -> Result<()> {
        match command {
            TransactionCommand::Begin(modes) => {
                let tag = "BEGIN";
                match std::mem::replace(&mut self.block, Block::None) {
                    Block::None => {
                        let transaction = self.new_transaction();
                        self.block = Block::Explicit(OpenBlock {
                            transaction,
                            locks: BTreeMap::new(),
                        });
                        if let Err(error) = self.apply_modes(*modes).await {
                            self.block = Block::None;
                            return Err(error);
                        }
                        self.settings.begin_transaction();
                    }
                    // BEGIN after other statements of one query string takes them into the block.
                    Block::Implicit(open) => {
                        self.block = Block::Explicit(open);
                        self.settings.begin_transaction();
                        self.apply_modes(*modes).await?;
                    }
                    Block::Explicit(open) => {
                        self.block = Block::Explicit(open);
                        let warning = SqlError::new(
                            SqlState::ACTIVE_SQL_TRANSACTION,
                            "there is already a transaction in progress",
                        );
                        client.notice("WARNING", &warning);
                    }
                    failed @ Block::Failed(_) => {
                        self.block = failed;
                        return Err(failed_block());
                    }
                }
                client.command_complete(tag);
            }
            TransactionCommand::Commit => match std::mem::replace(&mut self.block, Block::None) {
                Block::Explicit(open) | Block::Implicit(open) => {
                    let committed = open.transaction.commit().await;
                    self.end_settings(committed.is_ok(), client);
                    committed?;
                    client.command_complete("COMMIT");
                }
                Block::Failed(open) => {
                    if let Some(open) = open {
                        open.transaction.rollback_and_wait().await;
                    }
                    self.end_settings(false, client);
                    client.command_complete("ROLLBACK");
                }
                Block::None => {
                    client.notice("WARNING", &no_transaction());
                    client.command_complete("COMMIT");
                }
            },
            TransactionCommand::Rollback => {
                match std::mem::replace(&mut self.block, Block::None) {
                    Block::Explicit(open) | Block::Implicit(open) | Block::Failed(Some(open)) => {
                        open.transaction.rollback_and_wait().await
                    }
                    Block::Failed(None) => {}
                    Block::None => client.notice("WARNING", &no_transaction()),
                }
                self.end_settings(false, client);
                client.command_complete("ROLLBACK");
            }
            TransactionCommand::Savepoint(name) => {
                self.block_for_savepoint("SAVEPOINT")?.transaction.savepoint(name);
                self.settings.savepoint(name);
                client.command_complete("SAVEPOINT");
            }
            TransactionCommand::Release(name) => {
                let open = self.block_for_savepoint("RELEASE SAVEPOINT")?;
                open.transaction.release_savepoint(name)?;
                self.settings.release_savepoint(name);
                client.command_complete("RELEASE");
            }
            TransactionCommand::RollbackTo(name) => {
                match &mut self.block {
                    Block::Explicit(open) | Block::Failed(Some(open)) => {
                        open.transaction.rollback_to_savepoint(name).await?;
                    }
                    Block::Failed(None) => return Err(no_savepoint(name)),
                    Block::None | Block::Implicit(_) => {
                        return Err(only_in_blocks("ROLLBACK TO SAVEPOINT"));
                    }
                }
                self.change_settings(client, |settings| settings.rollback_to_savepoint(name));
                self.block = match std::mem::replace(&mut self.block, Block::None) {
                    Block::Failed(Some(open)) => Block::Explicit(open),
                    other => other,
                };
                client.command_complete("ROLLBACK");
            }
            TransactionCommand::SetModes(modes) => {
                match &self.block {
                    Block::Explicit(_) => self.apply_modes(*modes).await?,
                    Block::Failed(_) => return Err(failed_block()),
                    Block::None | Block::Implicit(_) => {
                        let warning = SqlError::new(
                            SqlState::NO_ACTIVE_SQL_TRANSACTION,
                            "SET TRANSACTION can only be used in transaction blocks",
                        );
                        client.notice("WARNING", &warning);
                    }
                }
                client.command_complete("SET");
            }
            TransactionCommand::SetSessionModes(modes) => {
                if let Some(isolation) = modes.isolation {
                    self.settings.set(
                        "default_transaction_isolation",
                        Some(isolation_name(isolation)),
                        false,
                    )?;
                }
                if let Some(read_only) = modes.read_only {
                    self.settings
                        .set("default_transaction_read_only", Some(on_or_off(read_only)), false)?;
                }
                if let Some(deferrable) = modes.deferrable {
                    self.settings.set(
                        "default_transaction_deferrable",
                        Some(on_or_off(deferrable)),
                        false,
                    )?;
                }
                client.command_complete("SET");
            }
        }
        Ok(())
    }

    /// The transaction has ended, and with it what was set for it only.
    fn end_settings(&mut self, committed: bool, client: &mut dyn Client) {
        self.change_settings(client, |settings| {
            if committed {
                settings.commit();
            } else {
                settings.roll_back();
            }
        });
    }

    /// Changes settings, and tells the client of the one that it is always told of.
    fn change_settings(&mut self, client: &mut dyn Client, change: impl FnOnce(&mut Settings)) {
        let name = |settings: &Settings| settings.get("application_name").map(str::to_owned).ok();
        let before = name(&self.settings);
        change(&mut self.settings);
        let after = name(&self.settings);
        if let Some(after) = after.filter(|after| before.as_ref() != Some(after)) {
            client.parameter_status("application_name", &after);
        }
    }

    async fn apply_modes(&mut self, modes: TransactionModes) -> Result<()> {
        let Block::Explicit(open) = &mut self.block else {
            return Ok(());
        };
        if let Some(isolation) = modes.isolation {
            if open.transaction.has_begun_work() && isolation != open.transaction.isolation {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                ));
            }
            open.transaction.isolation = if open.transaction.past().is_some() {
                isolation.max(IsolationLevel::RepeatableRead)
            } else {
                isolation
            };
        }
        if let Some(read_only) = modes.read_only {
            if open.transaction.past().is_some() && !read_only {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "a transaction AS OF SYSTEM TIME cannot be set to read-write mode",
                ));
            }
            if open.transaction.has_begun_work() && open.transaction.read_only && !read_only {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "transaction read-write mode must be set before any query",
                ));
            }
            open.transaction.read_only = read_only;
        }
        if let Some(deferrable) = modes.deferrable {
            open.transaction.deferrable = deferrable;
        }
        if let Some(as_of) = modes.as_of {
            if open.transaction.has_begun_work() {
                return Err(SqlError::new(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "SET TRANSACTION AS OF SYSTEM TIME must be called before any query",
                ));
            }
            open.transaction.read_as_of(as_of).await?;
        }
        Ok(())
    }

    async fn setting_command(&mut self, command: &SettingCommand, client: &mut dyn Client) -> Result<()> {
        match command {
            SettingCommand::Set {
                name,
                value: Some(value),
                ..
            } if name.starts_with("transaction_") => {
                // Of the current transaction, as SET TRANSACTION, and of no other.
                self.apply_modes(Settings::transaction_mode(name, value)?).await?;
                client.command_complete("SET");
            }
            SettingCommand::Set { name, value, local } => {
                let local = *local && matches!(self.block, Block::Explicit(_));
                self.settings.set(name, value.as_deref(), local)?;
                if name == "application_name" {
                    client.parameter_status(name, self.settings.get(name)?);
                }
                client.command_complete("SET");
            }
            SettingCommand::Show(name) if name == "all" => {
                for (name, value) in self.settings.all() {
                    client.row(&[
                        Datum::Text(name.into()),
                        Datum::Text(value.into()),
                        Datum::Text("".into()),
                    ]);
                }
                client.command_complete("SHOW");
            }
            SettingCommand::Show(name) => {
                let of_transaction = match &self.block {
                    Block::Explicit(open) => open.transaction.settings(),
                    _ => self.new_transaction().settings(),
                };
                let value = match of_transaction.into_iter().find(|(known, _)| known == name) {
                    Some((_, value)) => value,
                    None => self.settings.get(name)?.to_owned(),
                };
                client.row(&[Datum::Text(value.into())]);
                client.command_complete("SHOW");
            }
            SettingCommand::Reset(name) => {
                if name == "all" {
                    self.settings.reset_all();
                } else {
                    self.settings.set(name, None, false)?;
                }
                client.command_complete("RESET");
            }
            SettingCommand::Discard => {
                self.settings.reset_all();
                client.command_complete("DISCARD ALL");
            }
        }
        Ok(())
    }

    /// Ends the implicit transaction, if one is open.
    async fn end_implicit(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.block, Block::None) {
            Block::Implicit(open) => {
                self.settings.commit();
                open.transaction.commit().await
            }
            other => {
                self.block = other;
                Ok(())
            }
        }
    }

    /// After an error: an implicit transaction is gone, an explicit block has failed.
    async fn statement_failed(&mut self) {
        match std::mem::replace(&mut self.block, Block::None) {
            Block::None => {}
            Block::Implicit(open) => open.transaction.rollback_and_wait().await,
            Block::Explicit(open) if open.transaction.has_savepoints() => {
                self.block = Block::Failed(Some(open));
            }
            Block::Explicit(open) => {
                open.transaction.rollback_and_wait().await;
                self.block = Block::Failed(None);
            }
            failed @ Block::Failed(_) => self.block = failed,
        }
    }

    fn block_for_savepoint(&mut self, command: &str) -> Result<&mut OpenBlock> {
        match &mut self.block {
            Block::Explicit(open) => Ok(open),
            Block::Failed(_) => Err(failed_block()),
            Block::None | Block::Implicit(_) => Err(only_in_blocks(command)),
        }
    }
}

fn failed_block() -> Box<SqlError> {
    SqlError::new(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

fn only_in_blocks(command: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        format!("{command} can only be used in transaction blocks"),
    )
}

/// Whether it may run in a block that has failed.
fn leaves_failed_block(parsed: &ParsedStatement) -> bool {
    use TransactionCommand::{Commit, Rollback, RollbackTo};
    matches!(
        parsed.kind,
        ParsedKind::Transaction(Commit | Rollback | RollbackTo(_))
    )
}

fn no_transaction() -> Box<SqlError> {
    SqlError::new(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        "there is no transaction in progress",
    )
}

fn changes_tables(definition: &Definition) -> bool {
    !matches!(
        definition,
        Definition::SetPassword { .. } | Definition::DropUser { .. }
    )
}

/// The table whose definition must not change under the statement.
fn written_table(plan: &Plan) -> Option<&Arc<Table>> {
    match plan {
        Plan::Insert(insert) => Some(&insert.table),
        Plan::Modify(modify) => Some(&modify.table),
        Plan::ModifyByQuery(modify) => Some(&modify.table),
        Plan::Copy(copy) => copy.table.as_ref(),
        Plan::SimpleSelect(select) if select.locking.is_some() => Some(&select.table),
        _ => None,
    }
}

fn tag_of(plan: &Plan) -> &'static str {
    match plan {
        Plan::Insert(_) => "INSERT",
        Plan::Modify(modify) => {
            if modify.delete {
                "DELETE"
            } else {
                "UPDATE"
            }
        }
        Plan::ModifyByQuery(modify) => {
            if modify.delete {
                "DELETE"
            } else {
                "UPDATE"
            }
        }
        Plan::Copy(_) => "COPY",
        Plan::Definition(_) => "DDL",
        _ => "SELECT",
    }
}

#[async_trait]
impl Session for CoordinatorSession {
    fn initial_parameters(&self) -> Vec<(String, String)> {
        let catalog = self.core.coordinator.metadata.snapshot();
        let superuser = catalog
            .users
            .get(&self.core.user)
            .is_some_and(|user| user.superuser);
        vec![
            (
                "is_superuser".to_owned(),
                if superuser { "on" } else { "off" }.to_owned(),
            ),
            (
                "application_name".to_owned(),
                self.settings.get("application_name").unwrap_or("").to_owned(),
            ),
        ]
    }

    async fn simple_query(&mut self, sql: &str, client: &mut dyn Client) -> Result<()> {
        let statements = match parse(sql) {
            Ok(statements) => statements,
            Err(error) => {
                self.statement_failed().await;
                return Err(error);
            }
        };
        if statements.is_empty() {
            client.empty_query();
            return Ok(());
        }
        let alone = statements.len() == 1;
        for parsed in statements {
            if matches!(self.block, Block::Failed(_)) && !leaves_failed_block(&parsed) {
                return Err(failed_block());
            }
            let plan = match self.analyze_current(parsed, Vec::new()).await {
                Ok(plan) => plan,
                Err(error) => {
                    self.statement_failed().await;
                    return Err(error);
                }
            };
            if let Some(columns) = describe(&plan.statement) {
                client.row_description(&columns);
            }
            self.run(&plan, &[], &mut None, 0, client, alone).await?;
        }
        self.end_implicit().await
    }

    async fn prepare(&mut self, sql: &str, parameter_oids: &[u32]) -> Result<Arc<Prepared>> {
        let outcome = self.prepare_statement(sql, parameter_oids).await;
        if outcome.is_err() {
            self.statement_failed().await;
        }
        outcome
    }

    async fn execute(
        &mut self,
        portal: &mut Portal,
        max_rows: usize,
        client: &mut dyn Client,
    ) -> Result<ExecuteOutcome> {
        if portal.prepared.plan.is::<EmptyStatement>() {
            client.empty_query();
            return Ok(ExecuteOutcome::Complete);
        }
        let plan = portal
            .prepared
            .plan
            .clone()
            .downcast::<CachedPlan>()
            .map_err(|_| SqlError::internal("statement of another kind"))?;
        self.run(
            &plan,
            &portal.parameters,
            &mut portal.execution,
            max_rows,
            client,
            false,
        )
        .await
    }

    async fn sync(&mut self) -> Result<()> {
        self.end_implicit().await
    }

    async fn fail(&mut self) {
        self.statement_failed().await;
    }

    fn transaction_status(&self) -> TransactionStatus {
        match self.block {
            Block::None | Block::Implicit(_) => TransactionStatus::Idle,
            Block::Explicit(_) => TransactionStatus::InTransaction,
            Block::Failed(_) => TransactionStatus::Failed,
        }
    }

    fn idle_in_transaction_limit(&self) -> Option<Duration> {
        let limit_ms = self.settings.milliseconds("idle_in_transaction_session_timeout");
        (limit_ms != 0).then(|| Duration::from_millis(limit_ms))
    }

    async fn close(&mut self) {
        if let Block::Implicit(open) | Block::Explicit(open) | Block::Failed(Some(open)) =
            std::mem::replace(&mut self.block, Block::None)
        {
            open.transaction.rollback_and_wait().await;
        }
    }
}

impl CoordinatorSession {
    async fn prepare_statement(&mut self, sql: &str, parameter_oids: &[u32]) -> Result<Arc<Prepared>> {
        let mut statements = parse(sql)?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let Some(parsed) = statements.pop() else {
            let plan: Arc<dyn std::any::Any + Send + Sync> = Arc::new(EmptyStatement);
            return Ok(Arc::new(Prepared {
                parameter_types: Vec::new(),
                columns: None,
                plan,
            }));
        };
        if matches!(self.block, Block::Failed(_)) && !leaves_failed_block(&parsed) {
            return Err(failed_block());
        }
        let parameter_types = parameter_oids
            .iter()
            .map(|oid| match oid {
                0 => Ok(None),
                oid => SqlType::from_oid(*oid).map(Some).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("type with OID {oid} does not exist"),
                    )
                }),
            })
            .collect::<Result<Vec<_>>>()?;
        let plan = self.analyze_current(parsed, parameter_types).await?;
        Ok(Arc::new(Prepared {
            parameter_types: plan.statement.parameter_types.clone(),
            columns: describe(&plan.statement),
            plan: Arc::new(plan),
        }))
    }
}
