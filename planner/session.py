"""From SQL text to plans: the one entry that the floors above use. Runs nothing.

    planner = Planner()                                 # its own empty catalog
    for statement in planner.parse(text):               # statements with their place in the text
        planned = planner.plan(statement)               # binds; changes the catalog; raises coded errors
        planned.changes    tuple[Change, ...]            created / replaced / dropped / altered catalog entries
        planned.outputs    tuple[PlannedOutput, ...]     streams, tables, sinks, selects to be run
        planned.command    Command | None                SHOW, SET, CHECKPOINT, INSERT … VALUES: for the front door
        plan = planner.extend(plan, planned)            # existing nodes keep their positions

    plan, planned = planner.compile(text)               # a whole script as one job
    errors = planner.validate(text)                     # every error of a script; changes nothing
    tree = planner.explain(text)                        # EXPLAIN as text; explain_json as JSON

`extend(plan, a, b, …)` compiles several planned statements together, so that queries of one source share
one node with the columns all of them need; extending one by one shares equal sub-plans, and a source node
that already has the columns. A statement with neither changes, outputs nor command does nothing
(CREATE … IF NOT EXISTS of what exists).

In a `Plan`, `outputs` says which node carries which stream, table, sink or select. Only nodes that
`Plan.reachable` finds from outputs somebody reads need to run: a stream that nobody reads may rest.
A dropped entry is not taken out of a plan by the planner: `Change` says what was dropped, and the driver
retires the nodes that no other output reaches.
"""
