"""SQL to a plan: dialect, catalog, logical plan, rules, physical plan. Runs nothing."""
