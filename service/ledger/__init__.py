"""The truth about instances, studies, jobs and deliveries. A queue message is only a wake-up call.

`arrivals` receives, `work` runs jobs, `delivery` sends, `report` lists; each is a class over one database.
"""
