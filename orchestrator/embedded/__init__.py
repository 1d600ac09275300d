"""Everything in one place: a Valkey and the services of stagebeam as child processes over one data folder."""
