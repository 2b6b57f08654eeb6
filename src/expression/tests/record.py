#!/usr/bin/env python3
"""Records what PostgreSQL says about the expressions of the tables in postgresql15/.

Reads lines of SQL expressions (anything behind a tab is dropped), asks the server that psql reaches, and writes
each expression with its type and value, or its error, behind a tab. Run it after adding expressions:

    ./record.py postgresql15/*.tsv
"""
import subprocess
import sys

SETUP = """
set client_min_messages = error;
set timezone = 'UTC';
create or replace function pg_temp.answer(expression text) returns text language plpgsql as $$
declare result text; state text; message text; hint text;
begin
    execute 'select pg_typeof(x)::text || case when x is null then '' NULL'' else ''='' || format(''%s'', x) end'
        || ' from (select (' || expression || ') as x) as one' into result;
    return replace(result, E'\\n', '\\n');
exception when others then
    get stacked diagnostics state = returned_sqlstate, message = message_text, hint = pg_exception_hint;
    return '!' || state || ' ' || message || case when hint <> '' then ' | ' || hint else '' end;
end $$;
"""


def main():
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            lines = [line.rstrip("\n").split("\t")[0] for line in file]
        script = SETUP
        expressions = [line for line in lines if line and not line.startswith("#")]
        for expression in expressions:
            quoted = expression.replace("'", "''")
            script += f"select pg_temp.answer('{quoted}');\n"
        command = ["psql", "-X", "-A", "-t", "-q", "-R", "\x1e", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        output = subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout
        answers = [answer for answer in output.replace("\n", "\x1e").split("\x1e") if answer]
        assert len(answers) == len(expressions), f"{path}: {len(answers)} answers to {len(expressions)} expressions"
        remaining = iter(answers)
        with open(path, "w", encoding="utf-8") as file:
            for line in lines:
                answered = line and not line.startswith("#")
                file.write(line + ("\t" + next(remaining) if answered else "") + "\n")


main()
