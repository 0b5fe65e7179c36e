"""A JupyterHub for a class on one machine, to try the whole day: python -m grading.hub FOLDER

One instructor, some learners, nbgrader's exchange between them, all of it below FOLDER and gone with it. Everybody has
the same password, which is printed, and all servers run as the same user of the system: a trial, not a service. For a
real class take the settings of jupyterhub_config.py that the course's page "Running a class" names.
"""
